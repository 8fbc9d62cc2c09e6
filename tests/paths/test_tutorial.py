"""Runs the commands of docs/tutorial/your-first-guarded-rollout.md in order, from an empty folder.

This takes as long as plan `trial`, about five minutes, most of it waiting. `pytest -s` prints the times.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.sources import ROOT

PAGE = ROOT / "docs" / "tutorial" / "your-first-guarded-rollout.md"
COMMANDS = re.findall(r"```sh\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
FILES = re.findall(r'```yaml title="([^"]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL)
PORTS = (8000, 8080, 9000)
MINUTES = 10


def test_it_has_at_most_eight_commands_of_one_line() -> None:
    assert 5 < len(COMMANDS) <= 8
    assert all("\n" not in command for command in COMMANDS)
    assert PAGE.read_text().startswith("# Your first guarded rollout\n\nThis takes eight commands")


@pytest.mark.parametrize(("name", "text"), FILES, ids=[name for name, _ in FILES])
def test_the_files_shown_are_those_used(name: str, text: str) -> None:
    assert (ROOT / "examples" / "tutorial" / name).read_text() == text


@dataclass
class Shell:
    """One shell in which the commands are typed in sequence, with the time and the exit code of each."""

    process: subprocess.Popen[str]
    said: Path
    began: float = field(default_factory=time.monotonic)
    transcript: list[str] = field(default_factory=list)

    def type(self, command: str) -> tuple[int, str]:
        """Return (exit code, output) of the command, or of its start if it ends with `&`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before, began = self.said.stat().st_size, time.monotonic()
        self.process.stdin.write(f"{command}\necho ended $? >&3\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline().removeprefix("ended "))
        text = self.said.read_bytes()[before:].decode()
        took, at = time.monotonic() - began, time.monotonic() - self.began
        self.transcript.append(f"{at:6.1f} s  (took {took:5.1f} s, code {code})  $ {command}\n{text}")
        return code, text


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """In an empty folder, with the packages of the checkout where the tutorial installs them."""
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"the tutorial's port {port} is taken on this machine")
    folder, programs = tmp_path / "empty", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, module in (
        ("pointsman-server", "controlplane"),
        ("pointsman", "pointsman.cli"),
        ("python", ""),
    ):
        (programs / name).write_text(
            f'#!/bin/sh\nexec "{sys.executable}" {f"-m {module}" if module else ""} "$@"\n'
        )
        (programs / name).chmod(0o755)
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'router_client'}",
        "POINTSMAN": str(ROOT),
        "POINTSMAN_VAR": str(folder / "var"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    said = tmp_path / "said"
    with said.open("a") as output:
        process = subprocess.Popen(
            ["/bin/bash", "-s"],  # reads a line, runs it, reads the next
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            process_group=0,
        )
    assert process.stdin is not None
    process.stdin.write(f"exec 3>&1 >>{said} 2>&1\n")
    shell = Shell(process, said)
    try:
        yield shell
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        (tmp_path / "transcript").write_text("\n".join(shell.transcript))
        print("\n".join(shell.transcript))


def ready() -> bool:
    try:
        return httpx.get("http://127.0.0.1:8000/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.timeout(MINUTES * 60 + 120)
def test_its_commands_lead_to_a_completed_and_a_rolled_back_rollout(shell: Shell) -> None:
    install, up, key, init, shop, gateway, cheaper, too_cheap = COMMANDS
    assert "pip install" in install, (
        "this one needs a package index; tests/deploy/test_wheels.py installs both"
    )
    assert shell.type(up)[0] == 0, shell.said.read_text()
    assert ready()
    assert shell.type(key)[0] == 0
    code, said = shell.type(init)
    assert (code, "version 1 of tickets: everything to large" in said) == (0, True), said
    assert (Path(f"/proc/{shell.process.pid}/cwd").resolve() / "router.env").stat().st_mode & 0o777 == 0o600
    shell.type(shop)
    shell.type(gateway)
    code, said = shell.type(cheaper)
    assert (code, "1 → 2: completed" in said) == (0, True), said
    code, said = shell.type(too_cheap)
    assert (code, "2 → 3: rolled back" in said, "Failures +" in said) == (1, True, True), said
    assert time.monotonic() - shell.began < MINUTES * 60
