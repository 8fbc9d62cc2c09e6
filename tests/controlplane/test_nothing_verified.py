"""Verification of nothing never reports "verified". Also: a key is issued only for what exists."""

import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from controlplane.access.models import Key
from controlplane.audit import checkpoints, exports, log, verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from tests.support import builders
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in

SCRIPT = Path(__file__).parents[2] / "docs" / "verify_audit.py"
JUNK = [b"", b"\n", b"\x00\xff\xfe\x80" * 50, b"pointsman.audit/", b"no checkpoint at all\n"]


def run(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-I", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def exported(tmp_path: Path, db: Any) -> Path:
    with transaction.atomic():
        log.record(actor=SYSTEM, action="team.create", target=("team", "data"))
    file = tmp_path / "audit.jsonl"
    file.write_text("".join(exports.lines(Entry.objects.all(), "jsonl")))
    return file


@pytest.mark.parametrize(
    "content", [*JUNK, b"seq,at\n1,2\n", b"[]\n", b'{"body": 1}\n', b"[" * 100_000, b"1\n"]
)
def test_a_file_without_entries_is_not_verified(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "export"
    file.write_bytes(content)
    code, said = run(file)
    assert code == 2
    assert said.startswith(f"Nothing was verified. {file} holds no entries")
    assert "Traceback" not in said


@pytest.mark.parametrize("content", JUNK)
def test_a_file_without_a_checkpoint_is_not_verified(exported: Path, content: bytes) -> None:
    file = exported.with_name("notes")
    file.write_bytes(content)
    code, said = run(exported, file)
    assert code == 2
    assert "holds no checkpoint" in said
    with pytest.raises(CommandError, match="holds no checkpoint") as refused:
        call_command("audit", "verify", "--without-file", "--checkpoints", str(file))
    assert refused.value.returncode == 2


@pytest.mark.parametrize(
    "arguments", [[], ["missing.jsonl"], [SCRIPT, "missing"], [".", "x"], ["a", "b", "c"]]
)
def test_it_answers_wrong_arguments_with_a_sentence_and_its_usage(arguments: list[object]) -> None:
    code, said = run(*arguments)
    assert code == 2
    assert said.startswith("Nothing was verified. ")
    assert "verify_audit.py EXPORT.jsonl [CHECKPOINTS]" in said
    assert "Traceback" not in said


def test_it_explains_itself() -> None:
    code, said = run("--help")
    assert (code, said.count("verify_audit.py EXPORT.jsonl")) == (0, 1)


def test_a_checkpoint_of_another_log_does_not_verify_this_one(exported: Path) -> None:
    checkpoints.make()
    note = checkpoints.file_text()
    file = exported.with_name("notes")
    file.write_text(note)
    assert run(exported, file) == (0, "verified\n")
    file.write_text(note.replace("pointsman.audit/", "pointsman.audit/0"))
    assert run(exported, file)[0] == 1


def test_an_entry_that_cannot_be_read_is_named(exported: Path) -> None:
    exported.write_text(exported.read_text() + "{}\n")
    assert run(exported) == (1, "entry 2: cannot be read\n")


FORGED = r'"body": "{\"seq\": 1, \"action\": \"harmless\"}", '


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"seq"', "{" + FORGED + '"seq"', "has a member twice"),
        ('{"seq"', '{"hash": "", "seq"', "has a member twice"),
        ('{"seq"', '{"actor": "alice", "seq"', "has a further member 'actor'"),
        (r"{\"action\":", r"{\"action\":\"harmless\",\"action\":", "has a member twice"),
        (r"{\"action\":", r"{\"x\":{\"a\":1,\"a\":2},\"action\":", "has a member twice"),
    ],
)
def test_a_line_that_shows_more_than_its_hash_covers_is_not_verified(
    exported: Path, old: str, new: str, said: str
) -> None:
    """Readers that take the first of two members, or any further one, saw what nobody wrote: it said "verified"."""
    lines = exported.read_text()
    assert old in lines and run(exported) == (0, "verified\n")
    exported.write_text(lines.replace(old, new, 1))
    assert run(exported) == (1, f"entry 1: {said}\n")


@pytest.mark.django_db
def test_an_empty_log_is_not_verified() -> None:
    with pytest.raises(CommandError, match="no entries"):
        call_command("audit", "verify", "--without-file", stdout=StringIO())


@pytest.mark.django_db
def test_neither_the_page_nor_the_api_calls_an_empty_log_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = verification.Verified(findings=[], count=0, hash="", checkpoint=None)
    monkeypatch.setattr(verification, "verify", lambda **_: empty)
    answer = Caller()("POST", "audit/verification", {})
    assert (answer.status_code, answer.json()["verified"]) == (200, False)
    page = text(logged_in("vera", "viewer").post("/console/audit/verify/"))
    assert "No entries yet: nothing was verified." in page
    assert "Verified:" not in page and "altered" not in page


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--environment", "nope"], "- environment: there is no environment 'nope'."),
        (["--environment", "staging", "--workload", "nope"], "- workloads: there is no workload 'nope'."),
        ([], "- environment: a router key belongs to one environment."),
    ],
)
def test_the_command_refuses_a_key_for_what_does_not_exist(given: list[str], said: str) -> None:
    builders.environment("staging")
    with pytest.raises(CommandError) as refused:
        call_command("keys", "create", "router", "x", *given)
    assert str(refused.value).splitlines() == ["The key cannot be issued.", said]
    assert not Key.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong", [{"environment": "nope"}, {"environment": "staging", "workloads": ["nope"]}]
)
def test_the_api_refuses_it_too(wrong: dict[str, Any]) -> None:
    builders.environment("staging")
    answer = Caller()("POST", "keys", {"kind": "router", "label": "x", "reason": "y", **wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert "there is no" in answer.json()["problems"][0]["message"]
