"""The audit log: writing, tampering, and the findings of `audit verify`."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction

from controlplane.audit import chain, checkpoints, log, triggers, verification
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.audit.verify import Examination, StoredEntry
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.core.errors import RoleMissing
from tests.support import append_only

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_directory(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path


def write(action: str = "test.write", **fields: Any) -> Entry:
    with transaction.atomic():
        return log.record(actor=SYSTEM, action=action, target=("thing", "one"), **fields)


def body(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(entry.body))
    return found


def tamper(sql: str, *parameters: Any) -> None:
    with append_only.lifted(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def findings() -> list[tuple[str, int]]:
    return [(finding.kind, finding.seq) for finding in verification.verify().findings]


# --- writing -----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_it_refuses_to_write_outside_of_a_transaction() -> None:
    with pytest.raises(RuntimeError, match=r"transaction\.atomic"):
        log.record(actor=SYSTEM, action="a", target=("x", "1"))


def test_it_numbers_without_gaps_and_chains() -> None:
    first, second = write(), write()
    assert (first.seq, second.seq) == (1, 2)
    assert first.prev_hash == chain.genesis(Head.objects.get().chain)
    assert second.prev_hash == first.hash
    assert second.hash == chain.link(first.hash, bytes(second.body))


def test_it_rolls_an_entry_back_with_its_change() -> None:
    write()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        log.record(actor=SYSTEM, action="a", target=("x", "1"))
        raise ZeroDivisionError
    assert write().seq == 2
    assert findings() == []


def test_it_stores_the_difference_and_the_hashes_of_both_sides() -> None:
    before, after = {"a": 1, "same": [1], "n": {"x": 1}}, {"a": True, "same": [1], "n": {"x": 1, "y/z": 2}}
    kept = body(write(before=before, after=after))
    assert kept["diff"] == [
        {"path": "/a", "before": 1, "after": True},
        {"path": "/n/y~1z", "after": 2},
    ]
    assert kept["before_sha256"] == chain.digest(before)
    assert kept["after_sha256"] == chain.digest(after)


def test_it_stores_exact_numbers_and_times_as_text() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    kept = body(write(evidence={"d": Decimal("0.10"), "big": 2**60, "at": at, "nan": float("nan")}))
    assert kept["evidence"] == {
        "d": "0.10",
        "big": "1152921504606846976",
        "at": "2026-01-02T03:04:05.000000Z",
        "nan": "nan",
    }


def test_it_replaces_characters_that_cannot_be_stored() -> None:
    entry = write(reason="nul \0 and half \ud800")
    assert body(entry)["reason"] == "nul \ufffd and half \ufffd"
    assert findings() == []


def test_it_records_the_origin_of_a_change() -> None:
    with request_context("r-1", "api 10.0.0.7"):
        kept = body(write())
    assert (kept["request_id"], kept["source"]) == ("r-1", "api 10.0.0.7")


def test_it_keeps_a_refusal_though_the_attempt_is_rolled_back() -> None:
    with (
        pytest.raises(RoleMissing),
        log.attempt(actor=SYSTEM, action="thing.break", target=("thing", "1"), environment="production"),
    ):
        write("never.kept")
        raise RoleMissing("no")
    entry = Entry.objects.get()
    assert (entry.action, entry.outcome, entry.environment) == ("thing.break", "refused", "production")
    assert body(entry)["evidence"] == {"code": "role_missing", "detail": "no"}


def test_it_keeps_a_refusal_that_a_wider_transaction_rolled_back() -> None:
    error = RoleMissing("no")
    with pytest.raises(RoleMissing), transaction.atomic():
        log.record_refusal(error, actor=SYSTEM, action="thing.break", target=("thing", "1"))
        raise error
    assert not Entry.objects.exists()
    log.keep_refusal(error)
    log.keep_refusal(error)
    assert Entry.objects.get().outcome == "refused"


# --- append-only -------------------------------------------------------------------------------------

CHANGES = [
    "UPDATE audit_entry SET reason = 'other'",
    "DELETE FROM audit_entry",
    "UPDATE audit_checkpoint SET note = 'other'",
    "DELETE FROM audit_checkpoint",
]


@pytest.mark.parametrize("sql", CHANGES)
def test_the_database_refuses_to_change_the_log(sql: str) -> None:
    write()
    checkpoints.make()
    with (
        pytest.raises(IntegrityError, match="only grows"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)


def test_the_database_refuses_to_replace_or_truncate() -> None:
    write()
    if connection.vendor == "sqlite":
        sql = "INSERT OR REPLACE INTO audit_entry SELECT * FROM audit_entry"
    else:
        sql = "TRUNCATE audit_entry"
    with (
        pytest.raises(IntegrityError, match="only grows"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)


def test_every_append_only_table_has_its_triggers() -> None:
    assert triggers.missing(connection) == []


def test_a_missing_trigger_is_named() -> None:
    with connection.cursor() as cursor:
        on = " ON audit_entry" if connection.vendor == "postgresql" else ""
        name = "append_only_audit_entry_" + ("row" if on else "delete")
        cursor.execute(f"DROP TRIGGER {name}{on}")
    assert triggers.missing(connection) == [name]


# --- tampering ---------------------------------------------------------------------------------------


def forge(entry: Entry, **members: Any) -> None:
    """Rewrite an entry with a correct hash, as an informed attacker would."""
    forged = chain.canonical(body(entry) | members)
    tamper(
        "UPDATE audit_entry SET body = %s, hash = %s WHERE seq = %s",
        forged, chain.link(entry.prev_hash, forged), entry.seq,
    )  # fmt: skip


def rewrite_from(seq: int) -> None:
    """Rewrite an entry and all that follow, including hashes and the head."""
    previous = Entry.objects.get(seq=seq).prev_hash
    for entry in Entry.objects.filter(seq__gte=seq).order_by("seq"):
        forged = chain.canonical(body(entry) | {"reason": "rewritten"})
        new = chain.link(previous, forged)
        tamper(
            "UPDATE audit_entry SET body = %s, prev_hash = %s, hash = %s, reason = 'rewritten' "
            "WHERE seq = %s",
            forged, previous, new, entry.seq,
        )  # fmt: skip
        previous = new
    Head.objects.update(hash=previous)


def cut_after(seq: int) -> None:
    last = Entry.objects.get(seq=seq)
    tamper("DELETE FROM audit_entry WHERE seq > %s", seq)
    Head.objects.update(seq=seq, hash=last.hash)


def swap(one: int, two: int) -> None:
    tamper("UPDATE audit_entry SET seq = 1000 WHERE seq = %s", one)
    tamper("UPDATE audit_entry SET seq = %s WHERE seq = %s", one, two)
    tamper("UPDATE audit_entry SET seq = %s WHERE seq = 1000", two)


TAMPERINGS: list[tuple[str, Callable[[], object], tuple[str, int]]] = [
    (
        "content",
        lambda: tamper("UPDATE audit_entry SET body = %s WHERE seq = 3", b'{"seq":3}'),
        ("altered", 3),
    ),
    ("column", lambda: tamper("UPDATE audit_entry SET reason = 'x' WHERE seq = 3"), ("altered", 3)),
    (
        "content and hash",
        lambda: forge(Entry.objects.get(seq=3), evidence="forged"),
        ("altered", 3),
    ),
    ("last content and hash", lambda: forge(Entry.objects.get(seq=6), evidence="forged"), ("altered", 6)),
    ("one gone", lambda: tamper("DELETE FROM audit_entry WHERE seq = 3"), ("missing", 3)),
    ("first gone", lambda: tamper("DELETE FROM audit_entry WHERE seq = 1"), ("missing", 1)),
    ("end gone", lambda: tamper("DELETE FROM audit_entry WHERE seq > 4"), ("truncated", 5)),
    ("end gone, head too", lambda: cut_after(4), ("truncated", 5)),
    ("two swapped", lambda: swap(3, 4), ("reordered", 3)),
    ("rewritten from 2 on", lambda: rewrite_from(2), ("forked", 5)),
    ("head", lambda: Head.objects.update(hash="0" * 64), ("altered", 6)),
]


@pytest.mark.parametrize(("tampering", "found"), [t[1:] for t in TAMPERINGS], ids=[t[0] for t in TAMPERINGS])
def test_it_detects_tampering(tampering: Callable[[], object], found: tuple[str, int]) -> None:
    for _ in range(5):
        write()
    checkpoints.make()
    write()
    assert findings() == []
    tampering()
    assert found in findings()


def rows(
    *members: dict[str, Any], after: StoredEntry | None = None, chain_id: str = "c"
) -> list[StoredEntry]:
    """Return correctly hashed entries that follow `after`."""
    made: list[StoredEntry] = []
    for member in members:
        last = made[-1] if made else after
        seq, previous = (last.seq + 1, last.hash) if last else (1, chain.genesis(chain_id))
        content = chain.canonical({"chain": chain_id, "seq": seq} | member)
        made.append(StoredEntry(seq, content, previous, chain.link(previous, content)))
    return made


def examined(found: list[StoredEntry]) -> list[tuple[str, int]]:
    examination = Examination("c")
    examination.read(found)
    return [(finding.kind, finding.seq) for finding in examination.findings]


def test_it_finds_a_second_branch() -> None:
    one, two, three = rows({}, {}, {})
    (other,) = rows({"reason": "other"}, after=two)
    assert examined([one, two, three, other]) == [("forked", 3)]
    (follower,) = rows({}, after=three)
    (jump,) = rows({"seq": 4}, after=two)
    assert examined([one, two, three, follower]) == []
    assert examined([one, two, three, StoredEntry(4, jump.body, jump.prev_hash, jump.hash)]) == [
        ("forked", 4)
    ]


def test_it_finds_entries_of_another_log() -> None:
    foreign = rows({}, chain_id="other")
    assert examined(foreign) == [("forked", 1)]


def test_it_finds_lines_out_of_order() -> None:
    one, two, three = rows({}, {}, {})
    assert ("missing", 2) in examined([one, three, two])
    assert ("reordered", 1) in examined([one, two, one, three])


def test_it_finds_a_checkpoint_with_a_bad_signature() -> None:
    write()
    made = checkpoints.make()
    assert made is not None
    Path(checkpoints.checkpoint_file()).write_text(
        made.note.replace("2026-", "2027-").replace("2025-", "2027-")
    )
    tamper("DELETE FROM audit_checkpoint")
    text = made.note.splitlines()
    text[3] = "1999" + text[3][4:]
    checkpoints.checkpoint_file().write_text("\n".join(text) + "\n")
    assert ("bad signature", 1) in findings()


def test_the_file_proves_that_entries_were_cut_from_the_database() -> None:
    write()
    write()
    checkpoints.make()
    cut_after(1)
    tamper("DELETE FROM audit_checkpoint")
    assert ("truncated", 2) in findings()


# --- checkpoints and the command ---------------------------------------------------------------------


def test_it_signs_only_when_something_was_appended() -> None:
    assert checkpoints.make() is None
    write()
    assert checkpoints.make() is not None
    assert checkpoints.make() is None
    assert Checkpoint.objects.count() == 1


def test_verify_reports_where_it_ended() -> None:
    entry = write()
    out = StringIO()
    call_command("audit", "verify", stdout=out)
    assert out.getvalue().strip() == f"1 entry, verified to {entry.hash}."


def test_verify_fails_and_names_the_entry() -> None:
    write()
    write()
    tamper("DELETE FROM audit_entry WHERE seq = 1")
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("audit", "verify", stdout=out)
    assert "entry 1: missing" in out.getvalue()


def test_an_export_verifies_without_pointsman(tmp_path: Path) -> None:
    for number in range(3):
        write(reason=f"Grund {number}: größer")
    checkpoints.make()
    out = StringIO()
    call_command("audit", "export", stdout=out)
    exported = tmp_path / "audit.jsonl"
    script = Path(__file__).parents[2] / "docs" / "verify_audit.py"

    def run(text: str) -> tuple[int, str]:
        exported.write_text(text)
        command: list[str | Path] = [sys.executable, "-I", script, exported, checkpoints.checkpoint_file()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    lines = out.getvalue().splitlines(keepends=True)
    assert run("".join(lines)) == (0, "verified")
    assert run("".join(lines).replace("Grund 1", "Grund 9")) == (1, "entry 2: altered")
    assert run(lines[0] + lines[2])[1].startswith("entry 2: missing or reordered")
    assert run(lines[0] + lines[1])[1].startswith("entry 3: truncated")
