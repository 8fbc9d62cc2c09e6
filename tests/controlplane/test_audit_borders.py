"""Edge cases of the audit log: lost checkpoints, forged continuations, the filter's days, the order of the triggers."""

import base64
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction

from controlplane.audit import chain, checkpoints, entries, log, verification
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.audit.pages import FilterForm
from controlplane.audit.triggers import AppendOnly
from controlplane.audit.verify import RESUME, Examination, StoredEntry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from tests.support import append_only

# --- checkpoints that the file lost ----------------------------------------------------------------------


def write() -> Entry:
    with transaction.atomic():
        return log.record(actor=SYSTEM, action="test.write", target=("thing", "one"))


def made(count: int) -> list[str]:
    """Make this many checkpoints, each after one more entry. Return their notes."""
    notes = []
    for _ in range(count):
        write()
        checkpoint = checkpoints.make()
        assert checkpoint is not None
        notes.append(f"{checkpoint.note}\n")
    return notes


@pytest.mark.django_db
@pytest.mark.parametrize("left", [[], [0], [0, 1], [0, 1, 2]])
def test_the_next_checkpoint_restores_what_the_file_lost(left: list[int]) -> None:
    notes = made(4)
    checkpoints.checkpoint_file().write_text("".join(notes[place] for place in left))
    (newest,) = made(1)
    assert checkpoints.file_text() == "".join([*notes, newest])


@pytest.mark.django_db
def test_it_reads_the_whole_file_when_its_end_has_none_of_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lost more notes than are searched at its end. Notes that it still has are not written again."""
    notes = made(5)
    monkeypatch.setattr(checkpoints, "_LOOKED_BACK", 2)
    checkpoints.checkpoint_file().write_text(notes[1])
    (newest,) = made(1)
    assert checkpoints.file_text() == "".join([notes[1], notes[0], *notes[2:], newest])


def test_a_public_key_is_the_base64_after_its_id() -> None:
    key = bytes(range(32))
    text = base64.b64encode(key).decode()
    assert checkpoints.public_key(f"abcd:{text}") == checkpoints.public_key(text) == key
    with pytest.raises(ValueError, match=r".+"):
        checkpoints.public_key("abcd:***")


@pytest.mark.django_db
@pytest.mark.parametrize("note", ["", "nonsense", "pointsman\n", "— pointsman AAAA\n"])
def test_a_row_with_an_unreadable_note_is_no_checkpoint_of_the_head(note: str) -> None:
    """Somebody wrote a row for the present head, so that nothing would be signed any more."""
    write()
    head = Head.objects.get()
    Checkpoint.objects.create(seq=head.seq, hash=head.hash, note=note, at=clock.now())
    if not note and connection.vendor == "sqlite":
        with append_only.lifted(), connection.cursor() as cursor:
            cursor.execute("UPDATE audit_checkpoint SET note = x'ff'")  # a value that is no text
    made = checkpoints.make()
    assert made is not None and made.seq >= head.seq


# --- an entry that claims to continue the log -----------------------------------------------------------


def entry(seq: int, previous: str, **members: Any) -> StoredEntry:
    body = chain.canonical({"chain": "c", "seq": seq, **members})
    return StoredEntry(seq, body, previous, chain.link(previous, body))


def examined(*rows: StoredEntry) -> list[tuple[str, int]]:
    examination = Examination("c")
    examination.read(rows)
    return [(finding.kind, finding.seq) for finding in examination.findings]


FOUND = [{"seq": 2, "hash": "0" * 64}]
FIRST = entry(1, chain.genesis("c"))
NO_BASE: list[Any] = [
    None, "x", {}, {"base": {"seq": 1, "hash": FIRST.hash}}, {"found": FOUND}, {"base": 1, "found": FOUND},
    {"base": {"seq": 1, "hash": FIRST.hash}, "found": {}},
]  # fmt: skip
WRONG_BASE: list[Any] = [
    {"seq": 1, "hash": "f" * 64},
    {"seq": 2, "hash": FIRST.hash},
    {"hash": FIRST.hash},
    {},
]


def resuming(base_seq: int, base_hash: str, seq: int) -> StoredEntry:
    proof = {"found": FOUND, "nonce": "n"}
    evidence = {"base": {"seq": base_seq, "hash": base_hash}, **proof}
    return entry(seq, chain.resume(base_hash, proof), action=RESUME, evidence=evidence)


@pytest.mark.parametrize("base", [(0, chain.genesis("c")), (1, FIRST.hash)], ids=["the start", "an entry"])
def test_a_continuation_need_not_link_to_the_entry_before_it(base: tuple[int, str]) -> None:
    """The finding that Pointsman recorded is the only one, and the log continues after it."""
    resumed = resuming(*base, seq=2)
    assert examined(FIRST, resumed, entry(3, resumed.hash)) == [("forged", 2)]


@pytest.mark.parametrize("evidence", NO_BASE, ids=str)
def test_a_continuation_without_a_base_must_link_like_any_entry(evidence: Any) -> None:
    linked = entry(2, FIRST.hash, action=RESUME, evidence=evidence)
    assert examined(FIRST, linked) == [("forged", 2)]
    loose = entry(2, "e" * 64, action=RESUME, evidence=evidence)
    assert examined(FIRST, loose) == [("forged", 2), ("altered", 1)]


@pytest.mark.parametrize("base", WRONG_BASE, ids=str)
def test_a_continuation_from_an_entry_that_does_not_exist_must_link_like_any_entry(base: Any) -> None:
    evidence = {"base": base, "found": FOUND, "nonce": "n"}
    linked = entry(2, FIRST.hash, action=RESUME, evidence=evidence)
    assert examined(FIRST, linked) == [("forged", 2)]
    link = chain.resume(str(base.get("hash")), {"found": FOUND, "nonce": "n"})
    assert examined(FIRST, entry(2, link, action=RESUME, evidence=evidence)) == [
        ("forged", 2),
        ("altered", 1),
    ]


@pytest.mark.django_db
def test_a_continuation_has_the_members_of_every_entry() -> None:
    first = write()
    Head.objects.update(hash="0" * 64)
    write()
    resumed = Entry.objects.get(action=RESUME)
    assert set(json.loads(bytes(resumed.body))) == set(json.loads(bytes(first.body)))


@pytest.mark.django_db
@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b'{"seq":2}', b'{"seq":2,"chain":1}'])
def test_the_log_continues_from_the_last_entry_that_can_be_read(body: bytes) -> None:
    """Somebody appended a row with a correct hash, and moved the head to it."""
    first = write()
    Entry.objects.create(
        **{**entries.columns(json.loads(bytes(first.body))), "at": first.at},
        seq=2, body=body, prev_hash=first.hash, hash=chain.link(first.hash, body),
    )  # fmt: skip
    Head.objects.update(seq=2, hash=chain.link(first.hash, body))
    write()
    resumed = json.loads(bytes(Entry.objects.get(action=RESUME).body))
    assert resumed["evidence"]["base"] == {"seq": 1, "hash": first.hash}


# --- columns beside the content --------------------------------------------------------------------------

COLUMNS = (
    "actor_kind", "actor_id", "actor_label", "action", "target_kind", "target_id", "environment", "workload",
    "outcome", "reason",
)  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("column", COLUMNS)
def test_it_finds_a_change_of_each_column(column: str) -> None:
    write()
    with append_only.lifted(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE audit_entry SET {column} = 'other' WHERE seq = 1")
    assert ("altered", 1) in [(found.kind, found.seq) for found in verification.verify().findings]


@pytest.mark.django_db
def test_there_is_no_other_column() -> None:
    assert set(COLUMNS) == set(entries.columns(json.loads(bytes(write().body)))) - {"at"}


# --- pages ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("given", "days"),
    [
        ({"since": "2026-03-01"}, [1, 2]),
        ({"since": "2026-03-02"}, [2]),
        ({"since": "2026-03-03"}, []),
        ({"until": "2026-03-01"}, [1]),
        ({"until": "2026-03-02"}, [1, 2]),
        ({"until": "2026-02-28"}, []),
        ({"since": "2026-03-01", "until": "2026-03-01"}, [1]),
        ({"since": "1 March"}, []),
    ],
    ids=str,
)
def test_the_days_of_the_filter_are_inclusive(
    given: dict[str, str], days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first entry is from the first moment of its day in UTC, the second from the last."""
    first, last = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, 23, 59, 59, 999_999, tzinfo=UTC)
    written = []
    for at in (first, last):
        monkeypatch.setattr(clock, "now", lambda at=at: at)
        written.append(write().pk)
    found = FilterForm(given).narrow(Entry.objects.filter(pk__in=written))
    assert sorted(one.at.day for one in found) == days


# --- triggers -------------------------------------------------------------------------------------------


def test_postgresql_gets_the_function_before_the_triggers_that_call_it() -> None:
    executed: list[str] = []
    editor: Any = SimpleNamespace(
        connection=SimpleNamespace(vendor="postgresql"), execute=lambda sql, params: executed.append(sql)
    )
    state: Any = SimpleNamespace(apps=apps)
    AppendOnly("Entry").database_forwards("audit", editor, state, state)
    made = [
        place for place, sql in enumerate(executed) if "FUNCTION append_only_refuse() RETURNS trigger" in sql
    ]
    calls = [place for place, sql in enumerate(executed) if "EXECUTE FUNCTION append_only_refuse()" in sql]
    assert (len(made), len(calls)) == (1, 2)
    assert made[0] < min(calls)
