"""Verify the whole log: entries, head, checkpoints (rows, file, copies), and the rows that entries describe.

All tables are read as of one moment: people and the engine go on writing, and an entry added between two reads would
look as if somebody had forged it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from controlplane.audit import chain, checkpoints, entries, log, notes
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.audit.subjects import Witness
from controlplane.audit.verify import UNREADABLE, Examination, Finding, StoredEntry, StoredHead
from controlplane.core import signing

_COLUMNS = {
    "actor_kind", "actor_id", "actor_label", "action", "target_kind", "target_id", "environment", "workload",
    "outcome", "reason",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verified:
    """The result. `count` entries were read; `hash` is the hash of the last one."""

    findings: list[Finding]
    count: int
    hash: str
    checkpoint: Checkpoint | None


def verify(
    other_keys: Sequence[bytes] = (), *, copies: Sequence[str] = (), with_file: bool = True
) -> Verified:
    """Examine the whole log. `copies` are texts of checkpoints kept elsewhere (by a webhook, in a backup).

    `with_file` says whether this machine keeps the checkpoint file; it does not if periodic jobs run elsewhere.
    """
    keys = [*signing.trusted_publics(), *other_keys]
    # Before the rows: a checkpoint's row is committed before its note is written to the file.
    file = checkpoints.file_text() if with_file else ""
    with _one_moment():
        return _verify(keys, copies, file, with_file)


def keeps_file() -> bool:
    """Return whether this machine keeps the checkpoint file: always if it runs the periodic jobs, so that a deleted
    file is noticed; otherwise if it is here."""
    return bool(settings.EMBEDDED_RUNNER) or checkpoints.checkpoint_file().exists()


def _verify(keys: Sequence[bytes], copies: Sequence[str], file: str, with_file: bool) -> Verified:
    head = Head.objects.filter(pk=log.HEAD).first()
    unreadable = []
    if head is not None and not entries.is_readable(head):
        unreadable, head = [Finding("altered", 0, "the head row cannot be read", "head")], None
    rows = list(_checkpoints(unreadable))
    known = _notes_of("".join(row.note for row in rows), file, *copies)
    witness = Witness()
    wanted = [note.seq for note in known] + ([head.seq] if head else [])
    examination = Examination(_chain_id(head, known), wanted, _all_columns, witness.read)
    examination.read(_stored_entries())
    proven = max((note.seq for note in known), default=0)
    stored = None if head is None else StoredHead(head.chain, head.seq, head.hash)
    examination.compare_head(stored, Head.objects.exclude(pk=log.HEAD).count(), proven)
    for note in known:
        examination.compare_note(note, notes.is_signed(note, keys))
    findings = [
        *unreadable,
        *examination.findings,
        *_rows_against_notes(rows),
        *(_rows_against_file(rows, file, checkpoints.file_text()) if with_file else ()),
        *witness.findings(),
    ]
    return Verified(
        list(dict.fromkeys(findings)), examination.count, examination.hash, rows[-1] if rows else None
    )


@contextmanager
def _one_moment() -> Iterator[None]:
    """Let every query inside see the database as it was at the first one, without keeping others from writing."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # Between two statements it checks hashes and signatures, for longer than the limit in a large log.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield
    else:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")  # `atomic` begins with IMMEDIATE, which locks out all writers
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def _checkpoints(unreadable: list[Finding]) -> Iterator[Checkpoint]:
    """Yield the rows that can be read; the others become findings."""
    for row in Checkpoint.objects.order_by("seq", "pk").defer("at"):
        try:
            notes.read_all(row.note), chain.timestamp(row.at), row.seq + 0  # each may hold anything in SQLite
        except UNREADABLE as error:
            sentence = f"its row cannot be read ({error})"
            unreadable.append(Finding("altered", 0, sentence, f"checkpoint {row.seq}"))
        else:
            yield row


def _chain_id(head: Head | None, known: Sequence[notes.Note]) -> str:
    """Return the log's id: from the first entry, otherwise from the head, otherwise from the checkpoints."""
    first = Entry.objects.filter(seq=1).values_list("body", "prev_hash").first()
    if first is not None:
        for name in [
            *([head.chain] if head else []),
            *(note.chain for note in known),
            _said_by(bytes(first[0])),
        ]:
            if chain.genesis(name) == first[1]:
                return name
    return head.chain if head else known[0].chain if known else ""


def _said_by(body: bytes) -> str:
    _, _, rest = body.partition(b'"chain":"')
    return rest.partition(b'"')[0].decode("utf-8", "replace")


def _notes_of(*texts: str) -> list[notes.Note]:
    """Return all known notes without duplicates. A note found only in the file was removed from the database."""
    return list(dict.fromkeys(note for text in texts for note in notes.read_all(text)))


def _rows_against_notes(rows: Sequence[Checkpoint]) -> Iterator[Finding]:
    for row in rows:
        found = notes.read_all(row.note)
        where = f"checkpoint {row.seq}"
        if len(found) != 1 or notes.rest(row.note):
            yield Finding("altered", row.seq, "its row does not contain a signed note", where)
            continue
        (note,) = found
        in_note = {"seq": note.seq, "hash": note.hash, "at": note.at}
        in_row = {"seq": row.seq, "hash": row.hash, "at": chain.timestamp(row.at)}
        if wrong := [name for name in in_note if in_note[name] != in_row[name]]:
            yield Finding("altered", row.seq, f"its row's {', '.join(wrong)} differs from its note", where)


def _rows_against_file(rows: Sequence[Checkpoint], file: str, later: str) -> Iterator[Finding]:
    """`file` was read before the rows, `later` after them."""
    in_rows = {row.note for row in rows}
    in_file = {note.whole for text in (file, later) for note in notes.read_all(text)}
    for row in rows:
        if row.note not in in_file:
            yield Finding("missing", row.seq, "its checkpoint is not in the file", f"checkpoint {row.seq}")
    for note in notes.read_all(file):
        if note.whole not in in_rows:
            yield Finding(
                "missing",
                note.seq,
                "its checkpoint is in the file but not in the database",
                f"checkpoint {note.seq}",
            )
    if left := notes.rest(file):
        yield Finding(
            "altered",
            0,
            f"the checkpoint file contains text that is not a checkpoint: {left[:60]!r}",
            "checkpoint file",
        )


def _stored_entries() -> Iterator[StoredEntry]:
    names = [field.name for field in Entry._meta.fields if field.name in _COLUMNS]
    for entry in Entry.objects.order_by("seq", "pk").iterator():
        kept = {name: getattr(entry, name) for name in names} | {"at": chain.timestamp(entry.at)}
        yield StoredEntry(entry.seq, bytes(entry.body), entry.prev_hash, entry.hash, kept)


def _all_columns(body: Mapping[str, Any]) -> dict[str, str]:
    return entries.columns(body) | {"at": body["ts"]}
