"""Other people's text on a terminal: its control characters are shown, and it writes no line of its own."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pointsman.cli import main
from pointsman.visible import json_text, one_line, visible

EVIL = "calm\x1b[2J\x9b1m\u202e\u2028\nstate  completed"
SHOWN = r"calm\x1b[2J\x9b1m\u202e\u2028\nstate  completed"
ROLLOUT = {
    "id": "r-1", "workload": "chat", "environment": "trial", "baseline": 1, "candidate": 2, "state": "aborted",
    "stage": None, "stages": [], "hold_sentence": EVIL, "outlook": "", "rollback_reason": EVIL, "can": [],
    "proposer_label": "anna",
}  # fmt: skip


def answers(request: httpx.Request) -> httpx.Response:
    where = request.url.path
    if where.endswith("report.md"):
        return httpx.Response(200, text=f"# Report\n\n{EVIL}\n", headers={"Content-Type": "text/markdown"})
    if where.endswith("/refused"):
        problem = {"path": EVIL, "message": EVIL}
        return httpx.Response(422, json={"code": "no", "detail": EVIL, "problems": [problem]})
    return httpx.Response(200, json={"items": [ROLLOUT]} if where.endswith("/rollouts") else ROLLOUT)


@pytest.fixture(autouse=True)
def plane(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = httpx.MockTransport(answers)
    monkeypatch.setattr("pointsman.cli.server.httpx.Client", partial(httpx.Client, transport=transport))
    for name, value in (("URL", "http://plane"), ("KEY", "pma_secret")):
        monkeypatch.setenv(f"POINTSMAN_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        written = capsys.readouterr()
        for text in (written.out, written.err):
            assert not any(one in text for one in "\x1b\x9b\u202e\u2028"), ascii(text)
        return code, written.out, written.err

    return run


@pytest.mark.parametrize("command", [("list",), ("status", "r-1"), ("watch", "r-1")])
def test_a_reason_is_shown_and_writes_no_line(said: Said, command: tuple[str, ...]) -> None:
    _, out, _ = said("rollout", *command)
    assert SHOWN in out
    assert "\nstate  completed" not in out


def test_a_report_keeps_its_lines(said: Said, tmp_path: Path) -> None:
    code, out, _ = said("report", "r-1")
    assert (code, out.splitlines()[:2]) == (0, ["# Report", ""])
    assert r"calm\x1b[2J\x9b1m\u202e\u2028" in out
    said("report", "r-1", "--to", str(tmp_path / "report.md"))
    assert EVIL in (tmp_path / "report.md").read_text(encoding="utf-8"), "a file has what was written"


def test_json_is_the_same_document(said: Said) -> None:
    _, out, _ = said("rollout", "status", "r-1", "--json")
    assert r"\u009b1m\u202e\u2028" in out
    assert json.loads(out) == ROLLOUT


def test_a_refusal_is_shown(said: Said) -> None:
    code, _, error = said("rollout", "status", "refused")
    assert code == 2
    assert error.count("\n") == 2, "the sentence and one problem"
    assert error.count(SHOWN) == 3


def test_a_policy_of_a_pull_request_is_shown(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POINTSMAN_URL")
    policy = tmp_path / "policy\x1b[1m.json"
    policy.write_text(json.dumps({"format": 1, EVIL: 1}))
    code, out, _ = said("validate", str(policy))
    assert code == 1
    assert SHOWN in out and r"policy\x1b[1m.json" in out
    assert all(line.startswith(str(tmp_path)) for line in out.splitlines())
    assert said("digest", str(policy))[0] == 1, "the problems on standard error"
    assert json.loads(said("validate", "--json", str(policy))[1])


def test_an_argument_and_a_file_that_do_not_exist_are_shown(said: Said) -> None:
    assert r"a\x1b[2Jb" in said("digest", "a\x1b[2Jb")[2]
    assert r"\x1b[2J" in said("\x1b[2J")[2]


def test_a_difference_is_shown_line_by_line(said: Said, tmp_path: Path) -> None:
    files = []
    for number, text in enumerate(("calm", "\u2028+evil\u202e\x9b")):
        policy: dict[str, Any] = {
            "format": 1, "workload": "chat", "default": "a", "fallback": ["b"],
            "models": {"a": {"model": "x/a", "params": {"stop": text}}, "b": {"model": "x/b"}},
        }  # fmt: skip
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(policy))
    code, out, _ = said("diff", *map(str, files))
    assert code == 1, out
    assert r"\u2028+evil\u202e\u009b" in out
    assert not any(line.startswith("+evil") for line in out.splitlines())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – é 日本 \xa0", "plain – é 日本 \xa0"),
        ("a\tb\nc", "a\tb\nc"),
        ("\r\0\x7f\x85\u200f\u2066\ufeff", r"\r\x00\x7f\x85\u200f\u2066\ufeff"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
    ],
)
def test_control_and_format_characters_become_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert one_line("a\tb\nc") == r"a\tb\nc"
    assert json.loads(json_text({"x": text})) == {"x": text}
