"""Writes signed checkpoints, and holds the whole log against them."""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from django.conf import settings
from django.db import transaction

from controlplane.audit import chain, log, notes
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.audit.verify import Examination, StoredEntry
from controlplane.core import clock, signing

logger = logging.getLogger(__name__)


def checkpoint_file() -> Path:
    """Beside the database, not in it: copy it off the machine, and a rewritten database cannot pass."""
    return Path(settings.VAR_DIR) / "checkpoints"


def make() -> Checkpoint | None:
    """Sign the head if it moved since the last checkpoint. Two at once make one."""
    head = Head.objects.filter(pk=log.HEAD).first()
    if head is None or not head.seq or Checkpoint.objects.filter(seq__gte=head.seq).exists():
        return None
    at = clock.now()
    note = notes.write(
        head.chain,
        head.seq,
        head.hash,
        chain.timestamp(at),
        sign=signing.sign,
        public=signing.public_bytes(),
    )
    with transaction.atomic():
        made, new = Checkpoint.objects.get_or_create(
            seq=head.seq, defaults={"hash": head.hash, "note": note, "at": at}
        )
    if new:
        with checkpoint_file().open("a", encoding="utf-8") as file:
            file.write(note + "\n")
        logger.info("audit checkpoint", extra={"seq": head.seq, "hash": head.hash})
    return made


def verify(other_keys: Sequence[bytes] = ()) -> Examination:
    """Examine the whole log: each entry, its links, the head, and every checkpoint in database and file."""
    head = Head.objects.filter(pk=log.HEAD).first()
    if head is None:
        return Examination("")
    known = _known_notes()
    examination = Examination(head.chain, [head.seq, *(note.seq for note in known)], log.columns)
    examination.read(_stored_entries())
    examination.compare_head(head.seq, head.hash)
    for note in known:
        examination.compare_note(note, notes.is_signed(note, [signing.public_bytes(), *other_keys]))
    return examination


def export() -> Iterator[str]:
    """The log as JSON lines, oldest first; `docs/verify_audit.py` verifies them without Pointsman."""
    for row in _stored_entries():
        yield json.dumps(
            {"seq": row.seq, "prev_hash": row.prev_hash, "hash": row.hash, "body": row.body.decode()}
        )


def public_key(text: str) -> bytes:
    """The 32 bytes of a key given as `keys public` prints it: `<key id>:<base64>`."""
    return base64.b64decode(text.rpartition(":")[2], validate=True)


def _stored_entries() -> Iterator[StoredEntry]:
    names = [field.name for field in Entry._meta.fields if field.name in _COLUMNS]
    for entry in Entry.objects.order_by("seq", "pk").iterator():
        columns = {name: getattr(entry, name) for name in names}
        yield StoredEntry(entry.seq, bytes(entry.body), entry.prev_hash, entry.hash, columns)


_COLUMNS = {
    "actor_kind", "actor_id", "actor_label", "action", "target_kind", "target_id", "environment", "workload",
    "outcome", "reason",
}  # fmt: skip


def _known_notes() -> list[notes.Note]:
    """All that are known, each once. One that is only in the file was taken out of the database."""
    text = "".join(Checkpoint.objects.order_by("seq").values_list("note", flat=True))
    if checkpoint_file().exists():
        text += checkpoint_file().read_text(encoding="utf-8")
    return list(dict.fromkeys(notes.read_all(text)))
