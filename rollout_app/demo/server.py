"""The demo's server: `manage.py serve` in a separate process, as in `make run`."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from django.conf import settings
from django.core.management.base import CommandError

PATIENCE_S = 60


class Server:
    """A running server: `with Server(8000) as server`, ready at `server.url`. Its log is next to the database."""

    def __init__(self, port: int) -> None:
        self.port = _free(port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log: Path = settings.VAR_DIR / "server.log"

    def __enter__(self) -> Self:
        program = ["-m", "controlplane"] if settings.FROM_WHEEL else [str(settings.BASE_DIR / "manage.py")]
        command = [sys.executable, *program, "serve", "--port", str(self.port)]
        with self.log.open("wb") as log:
            # Its own process group, so that only the demo gets Ctrl-C and ends everything in order.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0, env=os.environ)  # noqa: S603
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if not self.is_up or time.monotonic() > deadline:
                self._end()
                raise CommandError(f"The server did not start; its log is {self.log}:\n{self._tail()}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _end(self) -> None:
        if self.is_up:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def _free(port: int) -> int:
    """Return `port`, or another one if it is taken."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise CommandError("No port is free on 127.0.0.1.")
