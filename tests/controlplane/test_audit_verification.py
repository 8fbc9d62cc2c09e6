"""Verification of the whole log: head, checkpoints, their file, and the rows of other tables."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.access import actions as access
from controlplane.audit import checkpoints, log, notes, subjects, verification
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.audit.subjects import Subject, Witness
from controlplane.core.actors import SYSTEM
from tests.support import append_only
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in

FALSE = "f" * 64


def write() -> Entry:
    with transaction.atomic():
        return log.record(actor=SYSTEM, action="test.write", target=("thing", "one"))


@pytest.fixture
def _own_directory(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path


def found(**options: Any) -> list[str]:
    return [str(finding) for finding in verification.verify(**options).findings]


def changed(sql: str, *values: Any) -> None:
    with append_only.lifted(), connection.cursor() as cursor:
        cursor.execute(sql, values)


needs = pytest.mark.usefixtures("db", "_own_directory")


@needs
def test_the_id_of_a_log_without_a_head_is_in_its_first_entry() -> None:
    write(), write()
    Head.objects.all().delete()
    assert found() == ["head: missing: the head row is gone; the log ends at 2"]


@needs
@pytest.mark.parametrize("signed", [True, False])
def test_the_id_of_a_log_with_another_head_is_in_its_checkpoints_or_first_entry(signed: bool) -> None:
    write()
    if signed:
        checkpoints.make()
    Head.objects.update(chain="other")
    assert found() == ["head: altered: the head names another log (other)"]


@needs
def test_the_id_is_in_the_checkpoints_if_the_first_entry_is_damaged_too() -> None:
    write()
    checkpoints.make()
    Head.objects.update(chain="other")
    changed("UPDATE audit_entry SET body = %s", b"x")
    result = verification.verify()
    assert [(one.kind, one.seq, one.where) for one in result.findings] == [
        ("altered", 1, ""),
        ("altered", 0, "head"),
    ]


@needs
@pytest.mark.parametrize("embedded", [True, False])
def test_a_gateway_whose_jobs_run_elsewhere_has_no_file_to_compare_with(
    embedded: bool, settings: Any
) -> None:
    """Kubernetes: only the workers write the file, so the button was red from the first checkpoint on."""
    settings.EMBEDDED_RUNNER = embedded
    access.grant_role(access.create_person("ann", actor=SYSTEM, reason="new"), "viewer", "", actor=SYSTEM)
    call = Caller("viewer")
    checkpoints.make()
    checkpoints.checkpoint_file().unlink()
    answer = call("POST", "audit/verification").json()
    page = logged_in("ann").post("/console/audit/verify/")
    told = [finding["sentence"] for finding in answer["findings"]]
    assert answer["verified"] is not embedded, "where the jobs run, a deleted file is a finding"
    assert told == (["its checkpoint is not in the file"] if embedded else [])
    assert ("Verified: " in text(page)) is not embedded
    assert found() == ["checkpoint 3: missing: its checkpoint is not in the file"], "the command is strict"


@needs
def test_a_file_that_is_here_is_compared_also_where_the_jobs_run_elsewhere(settings: Any) -> None:
    settings.EMBEDDED_RUNNER = False
    write(), checkpoints.make()
    checkpoints.checkpoint_file().write_text("")
    assert Caller("viewer")("POST", "audit/verification").json()["verified"] is False


@needs
def test_a_log_without_entries_is_compared_with_its_checkpoints() -> None:
    write()
    checkpoints.make()
    changed("DELETE FROM audit_entry")
    Head.objects.all().delete()
    assert found() == [
        "head: missing: the head row is gone; the log ends at 0",
        "entry 1: truncated: the log ends at 0; a signed checkpoint proves that entry 1 existed",
    ]


@needs
@pytest.mark.parametrize("column", ["seq", "hash", "at"])
def test_a_checkpoint_that_differs_from_its_note_is_found(column: str) -> None:
    write()
    checkpoints.make()
    value = {"seq": 7, "hash": FALSE, "at": "2001-01-01 00:00:00+00:00"}[column]
    changed(f"UPDATE audit_checkpoint SET {column} = %s", value)
    seq = 7 if column == "seq" else 1
    assert found() == [f"checkpoint {seq}: altered: its row's {column} differs from its note"]


@needs
@pytest.mark.parametrize("content", ["", "no note", "twice", "more"])
def test_a_checkpoint_that_holds_no_note_or_more_is_found(content: str) -> None:
    write()
    made = checkpoints.make()
    assert made is not None
    kept = {"twice": f"{made.note}\n{made.note}", "more": f"{made.note}more"}.get(content, content)
    changed("UPDATE audit_checkpoint SET note = %s", kept)
    assert "checkpoint 1: altered: its row does not contain a signed note" in found()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond this: the rest of a write is refused, as on a full disk."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@needs
def test_a_full_disk_leaves_no_half_note_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be text that is not a checkpoint, which looks like tampering, and stays."""
    write()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_write_down", lambda made: None)  # the process died after the commit
        assert checkpoints.make() is not None
    with files_of_at_most(60), pytest.raises(OSError, match="space"):
        checkpoints._append_missing()
    assert checkpoints.file_text() == ""
    checkpoints._append_missing()
    assert found() == []


@needs
def test_the_file_and_the_rows_are_compared_both_ways() -> None:
    write()
    first = checkpoints.make()
    write()
    second = checkpoints.make()
    assert first is not None and second is not None
    file = checkpoints.checkpoint_file()
    whole = file.read_text()
    file.write_text(f"{second.note}\n")
    assert found() == ["checkpoint 1: missing: its checkpoint is not in the file"]
    assert found(with_file=False) == []
    changed("DELETE FROM audit_checkpoint WHERE seq = 1")
    file.write_text(whole)
    assert found() == ["checkpoint 1: missing: its checkpoint is in the file but not in the database"]
    assert found(with_file=False) == []
    file.write_text(f"{second.note}\nvisitors were here\n")
    assert found() == [
        "checkpoint file: altered: the checkpoint file contains text that is not a checkpoint: "
        "'visitors were here'"
    ]
    assert [one.seq for one in verification.verify().findings] == [0], "it is about no entry"


@needs
@pytest.mark.parametrize("content", ["", "\n", "of the first", "longer", "of its own number"])
def test_a_row_inserted_by_hand_does_not_keep_checkpoints_out_of_the_file(content: str) -> None:
    """Such a row could be removed later, with the entries since, and the file would not tell."""
    write()
    first = checkpoints.make()
    assert first is not None
    kept = {
        "of the first": first.note,
        "longer": f"{first.note}anything",
        "of its own number": first.note.replace("\n1\n", f"\n{2**40}\n"),
    }.get(content, content)
    Checkpoint.objects.create(seq=2**40, hash=FALSE, note=kept, at=first.at)
    write()
    second = checkpoints.make()
    assert second is not None
    assert [note.seq for note in notes.read_all(checkpoints.file_text())] == [1, second.seq]
    assert not notes.rest(checkpoints.file_text())
    changed("DELETE FROM audit_checkpoint WHERE seq > 1")
    changed("DELETE FROM audit_entry WHERE seq > 1")
    Head.objects.update(seq=1, hash=first.hash)
    assert any(line.startswith("entry 2: truncated") for line in found())


@needs
def test_the_result_names_the_last_entry_and_the_last_checkpoint() -> None:
    call = Caller("viewer")
    write()
    checkpoints.make()
    last = write()
    signed = Checkpoint.objects.get()
    result = verification.verify()
    assert (result.findings, result.count, result.hash, result.checkpoint) == (
        [],
        last.seq,
        last.hash,
        signed,
    )
    answer = call("POST", "audit/verification").json()
    assert answer["checkpoint_at"] is not None
    assert answer == {
        "verified": True,
        "entries": last.seq,
        "hash": last.hash,
        "checkpoint": last.seq - 1,
        "checkpoint_at": answer["checkpoint_at"],
        "findings": [],
    }
    Head.objects.update(chain="other")
    answer = call("POST", "audit/verification").json()
    assert answer["verified"] is False
    assert answer["findings"] == [
        {"kind": "altered", "seq": 0, "where": "head", "sentence": "the head names another log (other)"}
    ]


# --- rows of other tables ------------------------------------------------------------------------------------


def entry(name: str, *, outcome: str = "done", kind: str = "box", **after: Any) -> dict[str, Any]:
    diff = [{"path": f"/{column}", "after": value} for column, value in after.items()]
    return {"outcome": outcome, "target": {"kind": kind, "id": name}, "diff": diff}


WRITTEN = [entry("a", size=1, colour="red"), entry("a", colour="blue")]
STORED: dict[str, tuple[list[Any], list[tuple[str, Any]], list[str]]] = {
    "equal": (WRITTEN, [("a", {"size": 1, "colour": "blue", "unrecorded": 3})], []),
    "different": (
        WRITTEN,
        [("a", {"size": 2, "colour": "red"})],
        [
            "box a: contradicted: colour is 'red'; the log says 'blue'",
            "box a: contradicted: size is '2'; the log says '1'",
        ],
    ),
    "true is not 1": (WRITTEN, [("a", {"size": True})], ["box a: contradicted: size is 'True'; the log says '1'"]),
    "gone": (WRITTEN, [], ["box a: missing: the row is gone, but the log says that it exists"]),
    "not recorded": ([], [("b", {"size": 1})], ["box b: unrecorded: no entry of the log created this row"]),
    "refused": ([entry("b", outcome="refused", size=1)], [], []),
    "of another kind": ([entry("b", kind="bag", size=1)], [], []),
    "malformed": ([{"outcome": "done"}, *WRITTEN], [("a", {"size": 1, "colour": "blue"})], []),
    "fewer digits": ([entry("a", size="0.50")], [("a", {"size": "0.5"})], []),
    "other digits": (
        [entry("a", size="0.50")],
        [("a", {"size": "0.51"})],
        ["box a: contradicted: size is '0.51'; the log says '0.50'"],
    ),
    "other words": (
        [entry("a", size="big")],
        [("a", {"size": "small"})],
        ["box a: contradicted: size is 'small'; the log says 'big'"],
    ),
    "one different, the next not recorded": (
        [entry("a", size=1), entry("c", size=1)],
        [("a", {"size": 1}), ("b", {}), ("c", {"size": 2})],
        [
            "box b: unrecorded: no entry of the log created this row",
            "box c: contradicted: size is '2'; the log says '1'",
        ],
    ),
}  # fmt: skip


def compared(subject: Subject, written: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(subjects, "_registered", {subject.kind: subject})
    witness = Witness()
    for body in written:
        witness.read(body)
    return [str(finding) for finding in witness.findings()]


@pytest.mark.parametrize(("written", "rows", "found"), STORED.values(), ids=STORED)
def test_a_row_that_differs_from_its_entries_has_its_finding(
    written: list[Any], rows: list[Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compared(subjects.by_target("box", lambda: rows), written, monkeypatch) == found


def test_a_row_that_cannot_be_read_hides_which_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Any:
        yield "a", {"size": 1, "colour": "green"}
        raise ValueError("bad date")

    written = [*WRITTEN, entry("b", size=1)]
    assert compared(subjects.by_target("box", rows), written, monkeypatch) == [
        "box a: contradicted: colour is 'green'; the log says 'blue'",
        "box: contradicted: a row after a cannot be read (bad date); repair it, then verify the rows "
        "that follow it",
    ]


def test_a_number_is_not_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, stored in (("1", 1), (1, "1")):
        subject = subjects.by_target("box", lambda stored=stored: [("a", {"size": stored})])  # type: ignore[misc]
        (finding,) = compared(subject, [entry("a", size=told)], monkeypatch)
        assert finding == "box a: contradicted: size is '1'; the log says '1'"


def test_an_entry_that_one_kind_cannot_read_is_read_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(body: Any) -> Any:
        raise KeyError("no such member")

    box = subjects.by_target("box", lambda: [])
    monkeypatch.setattr(subjects, "_registered", {"bag": Subject("bag", broken, lambda: []), "box": box})
    witness = Witness()
    witness.read(entry("a", size=1))
    (finding,) = witness.findings()
    assert (finding.kind, finding.seq, finding.where) == ("missing", 0, "box a")


def test_values_that_the_log_does_not_give_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed row may be gone; a row of every new database needs no entry; an older entry may lack a value."""

    def said(body: Any) -> Any:
        yield body["name"], body["values"]

    rows: list[tuple[str, Any]] = [("new", {"size": 1}), ("old", {"size": 5, "colour": "red"})]
    unsaid = {"new": {"size": 1}}
    subject = Subject(
        "box",
        said,
        lambda: rows,
        unsaid.get,
        implied=lambda body, told: [("old", {"colour": "red", "size": 0})] if "box" not in told else [],
    )
    written = [
        {"outcome": "done", "name": "old", "values": {"size": subjects.UNSAID}},
        {"outcome": "done", "name": "gone", "values": {"size": 1}},
        {"outcome": "done", "name": "gone", "values": None},
    ]
    assert compared(subject, written, monkeypatch) == []
    rows[0] = ("new", {"size": 2})
    assert compared(subject, written, monkeypatch) == ["box new: contradicted: size is '2'; the log says '1'"]
