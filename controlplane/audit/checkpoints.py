"""Signed checkpoints: where the log stood at a moment, kept where a rewritten database cannot reach.

Each goes to a row, to a file beside the database, to the process's log, and to whoever listens (`on_checkpoint`: the
webhooks). Rows are trusted no more than entries: one that Pointsman did not make neither stops nor delays the next.
"""

import base64
import logging
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import transaction

from controlplane.audit import chain, log, notes
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.core import clock, signing
from controlplane.core.actors import SYSTEM

logger = logging.getLogger(__name__)
BAD = "audit.bad_checkpoint"  # the action of an entry that names a checkpoint row that is not Pointsman's
_LOOKED_BACK = 50  # notes (and kilobytes) of the file's end
_listeners: list[Callable[[Checkpoint], object]] = []


def on_checkpoint(listener: Callable[[Checkpoint], object]) -> None:
    """Call it with each checkpoint, in the transaction that keeps it."""
    _listeners.append(listener)


def checkpoint_file() -> Path:
    """Beside the database, not in it: copy it off the machine, and a rewritten database cannot pass."""
    return Path(settings.VAR_DIR) / "checkpoints"


def make() -> Checkpoint | None:
    """Sign the head if it moved since the last checkpoint. Two at once make one."""
    head = Head.objects.filter(pk=log.HEAD).first()
    if head is None or not head.seq:
        return None
    with transaction.atomic():
        # A genuine one beyond the head is of entries that are gone: it signs nothing that is there.
        bad = list(Checkpoint.objects.filter(seq__gte=head.seq))
        if any((row.seq, row.hash) == (head.seq, head.hash) and is_genuine(row, head.chain) for row in bad):
            _write_lost()
            return None  # the head is signed already
        head = _told_of(bad) or head
        made = _keep(head)
    if made is not None:
        _write_down(made)
    return made


def _keep(head: Head) -> Checkpoint | None:
    at = clock.now()
    note = notes.write(
        head.chain,
        head.seq,
        head.hash,
        chain.timestamp(at),
        sign=signing.sign,
        public=signing.public_bytes(),
    )
    values = {"hash": head.hash, "note": note, "at": at}
    made, new = Checkpoint.objects.get_or_create(seq=head.seq, defaults=values)
    if not new:
        return None
    for listener in _listeners:
        listener(made)
    return made


def _write_down(made: Checkpoint) -> None:
    """To the process's log and to the file."""
    logger.info("audit checkpoint", extra={"seq": made.seq, "hash": made.hash, "note": made.note})
    _write_lost()


def _write_lost() -> None:
    """Write to the file what it has not: the newest note, and those that a crash or a hand took away."""
    if not (lost := _lost()):
        return
    if len(lost) > 1:
        logger.warning(
            "the file of checkpoints lacked %d earlier notes; they were written again", len(lost) - 1
        )
    path = checkpoint_file()
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(note + "\n" for note in lost)


def _lost() -> list[str]:
    newest = list(Checkpoint.objects.order_by("-seq").values_list("note", flat=True)[:_LOOKED_BACK])
    tail = _tail()
    for place, note in enumerate(newest):
        if note in tail:  # the usual case: all but the newest are there, and the file is not read whole
            return newest[:place][::-1]
    text = file_text()
    return [n for n in Checkpoint.objects.order_by("seq").values_list("note", flat=True) if n not in text]


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
    """Whether Pointsman made this row: one note, signed, of this log, and the columns say the same."""
    found = notes.read_all(row.note)
    if len(found) != 1 or notes.rest(row.note):
        return False
    (note,) = found
    said = (note.chain, note.seq, note.hash, note.at)
    if said != (chain_id, row.seq, row.hash, chain.timestamp(row.at)):
        return False
    return notes.is_signed(note, signing.trusted_publics())


def _told_of(bad: list[Checkpoint]) -> Head | None:
    """Keep an entry for each row that cannot be ours and was not told of; the head behind it, if there is one."""
    new = [row for row in bad if not Entry.objects.filter(action=BAD, target_id=_name_of(row)).exists()]
    for row in new:
        _tell(row)
    while bad and Checkpoint.objects.filter(seq=Head.objects.get(pk=log.HEAD).seq).exists():
        _tell(bad[0])  # its number is taken, too: one further on
        new = bad
    return Head.objects.get(pk=log.HEAD) if new else None


def _tell(row: Checkpoint) -> None:
    log.record(
        actor=SYSTEM,
        action=BAD,
        target=("checkpoint", _name_of(row)),
        reason="This checkpoint does not belong to the log as it is; checkpoints go on behind it.",
        evidence={"seq": str(row.seq), "hash": row.hash},
    )


def _name_of(row: Checkpoint) -> str:
    return f"{row.pk} {chain.digest([row.seq, row.hash, row.note])[:16]}"


def public_key(text: str) -> bytes:
    """The 32 bytes of a key given as `keys public` prints it: `<key id>:<base64>`."""
    return base64.b64decode(text.rpartition(":")[2], validate=True)
