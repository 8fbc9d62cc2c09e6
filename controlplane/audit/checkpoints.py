"""Signed checkpoints: records of the log's head, stored where rewriting the database cannot reach them.

Each goes to a row, to a file next to the database, to the process's log, and to listeners (`on_checkpoint`: the
webhooks). Rows are not trusted more than entries: a row that Pointsman did not write neither stops nor delays the next
checkpoint.
"""

import base64
import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings
from django.db import transaction

from controlplane.audit import chain, log, notes
from controlplane.audit.entries import is_readable
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.audit.verify import UNREADABLE
from controlplane.core import clock, signing
from controlplane.core.actors import SYSTEM

logger = logging.getLogger(__name__)
BAD = "audit.bad_checkpoint"  # action of an entry that reports a checkpoint row not written by Pointsman
_LOOKED_BACK = 50  # notes (and kilobytes) read from the file's end
_listeners: list[Callable[[Checkpoint], object]] = []


def on_checkpoint(listener: Callable[[Checkpoint], object]) -> None:
    """Register a function to be called with each checkpoint, in the transaction that stores it."""
    _listeners.append(listener)


def checkpoint_file() -> Path:
    """Return the path of the checkpoint file, outside the database. Copies on another machine expose a rewritten
    database."""
    return Path(settings.VAR_DIR) / "checkpoints"


def make() -> Checkpoint | None:
    """Sign the head if it moved since the last checkpoint. Concurrent calls create only one."""
    head = Head.objects.filter(pk=log.HEAD).first()
    if head is None or not head.seq or not is_readable(head):
        return None
    with transaction.atomic():
        # A genuine checkpoint beyond the head covers entries that are gone, so it does not cover the present head.
        bad = list(Checkpoint.objects.filter(seq__gte=head.seq).defer("at"))
        if any((row.seq, row.hash) == (head.seq, head.hash) and is_genuine(row, head.chain) for row in bad):
            _append_missing()
            return None  # the head is signed already
        head = _report_foreign_rows(bad) or head
        made = _keep(head)
    if made is not None:
        _write_down(made)
    return made


def _keep(head: Head) -> Checkpoint | None:
    at, key = clock.now(), signing.private_key()  # read once: a rotation may replace it at any time
    note = notes.write(
        head.chain,
        head.seq,
        head.hash,
        chain.timestamp(at),
        sign=key.sign,
        public=signing.public_of(key),
    )
    values = {"hash": head.hash, "note": note, "at": at}
    made, new = Checkpoint.objects.get_or_create(seq=head.seq, defaults=values)
    if not new:
        return None
    for listener in _listeners:
        listener(made)
    return made


def _write_down(made: Checkpoint) -> None:
    """Write a checkpoint to the process's log and to the file."""
    logger.info("audit checkpoint", extra={"seq": made.seq, "hash": made.hash, "note": made.note})
    _append_missing()


def _append_missing() -> None:
    """Append missing notes to the file: the newest one, and any that a crash or a person removed."""
    if not (lost := _missing_notes()):
        return
    if len(lost) > 1:
        logger.warning("the checkpoint file lacked %d earlier notes; they were written again", len(lost) - 1)
    path = checkpoint_file()
    path.touch(mode=0o600)
    text = "".join(note + "\n" for note in lost).encode()
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        written = 0
        try:
            written = file.write(text)  # on a full disk perhaps less, without an error
        finally:
            if written < len(text):  # half a note in the file would look like tampering for ever
                file.truncate(before)
    if written < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _missing_notes() -> list[str]:
    """Return the notes that the file lacks, oldest first.

    A row that Pointsman did not write must not keep later notes out of the file: with a very high number and an old
    note, it would look like the newest one, and as if it were there already.
    """
    tail, keys = _whole_notes(_tail()), signing.trusted_publics()
    newest = [note for note in _notes("-seq", _LOOKED_BACK) if notes.is_signed(note, keys)]
    for place, note in enumerate(newest):
        if note.whole in tail:  # usually only the newest is missing, and the whole file need not be read
            return [missing.whole for missing in newest[:place][::-1]]
    written = _whole_notes(file_text())
    return [note.whole for note in _notes("seq") if note.whole not in written]


def _notes(ordering: str, most: int | None = None) -> Iterator[notes.Note]:
    """Yield the notes of the rows, except of those that hold anything but one note of their own number."""
    for seq, text in Checkpoint.objects.order_by(ordering).values_list("seq", "note")[:most]:
        found = notes.read_all(text) if isinstance(text, str) else []
        if len(found) == 1 and (found[0].whole, found[0].seq) == (text, seq):
            yield found[0]


def _whole_notes(text: str) -> set[str]:
    return {note.whole for note in notes.read_all(text)}


def _tail() -> str:
    path = checkpoint_file()
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOOKED_BACK * 1024))
        return file.read().decode("utf-8", "replace")


def file_text() -> str:
    path = checkpoint_file()
    return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""


def is_genuine(row: Checkpoint, chain_id: str) -> bool:
    """Return whether Pointsman wrote this row: one note, signed, of this log, matching the columns."""
    try:
        found = notes.read_all(row.note)
        if len(found) != 1 or notes.rest(row.note):
            return False
        (note,) = found
        in_note = (note.chain, note.seq, note.hash, note.at)
        if in_note != (chain_id, row.seq, row.hash, chain.timestamp(row.at)):
            return False
        return notes.is_signed(note, signing.trusted_publics())
    except UNREADABLE:
        return False


def _report_foreign_rows(bad: list[Checkpoint]) -> Head | None:
    """Record an entry for each foreign row not yet reported. Return the new head, or None if nothing was recorded."""
    new = [row for row in bad if not Entry.objects.filter(action=BAD, target_id=_name_of(row)).exists()]
    for row in new:
        _report(row)
    while bad and Checkpoint.objects.filter(seq=Head.objects.get(pk=log.HEAD).seq).exists():
        _report(bad[0])  # this number is taken too, so move on by one
        new = bad
    return Head.objects.get(pk=log.HEAD) if new else None


def _report(row: Checkpoint) -> None:
    log.record(
        actor=SYSTEM,
        action=BAD,
        target=("checkpoint", _name_of(row)),
        reason="This checkpoint does not match the log; checkpoints continue after it.",
        evidence={"seq": str(row.seq), "hash": row.hash},
    )


def _name_of(row: Checkpoint) -> str:
    return f"{row.pk} {chain.digest([row.seq, row.hash, row.note])[:16]}"


def public_key(text: str) -> bytes:
    """Return the 32 bytes of a key in the format of `keys public`: `<key id>:<base64>`."""
    return base64.b64decode(text.rpartition(":")[2], validate=True)
