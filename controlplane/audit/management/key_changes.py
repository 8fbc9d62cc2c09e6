"""Detects signing keys that were changed without `manage.py signing_key`: in the environment, or by editing the file.

A process that starts with keys other than the last ones in the log appends an entry about it. The log's last statement
is trusted as much as the rest of the log. If it names no keys yet, the signer of the newest checkpoint counts.
"""

import json

from django.db import transaction

from controlplane.audit import log, notes
from controlplane.audit.models import Checkpoint, Entry
from controlplane.core import signing
from controlplane.core.actors import SYSTEM

NOTICED = "signing_key.noticed"
_NAMING_KEYS = (NOTICED, "signing_key.rotate", "signing_key.retire")
UNKNOWN = "a key that is not here"


def notice() -> bool:
    """Append an entry if the signing keys changed, and return whether it did. Safe to call concurrently."""
    if _recorded_keys() in (None, signing.key_ids()):
        return False
    with transaction.atomic():
        # Another process may have noticed the change at the same moment, or the command may just be making it.
        log.locked_head()
        told, now = _recorded_keys(), signing.key_ids()
        if told in (None, now):
            return False
        log.record(
            actor=SYSTEM,
            action=NOTICED,
            target=("signing_key", now[0]),
            reason=f"The signing keys were changed in {_where()}, not by `manage.py signing_key`.",
            before={"keys": told},
            after={"keys": now},
        )
    return True


def _where() -> str:
    return "POINTSMAN_SIGNING_KEY" if signing.from_settings() else "the instance's file"


def _recorded_keys() -> list[str] | None:
    """Return the ids of the last keys named by the log; None if it names none."""
    entry = Entry.objects.filter(action__in=_NAMING_KEYS, outcome="done").order_by("-seq").first()
    if entry is not None:
        for change in json.loads(bytes(entry.body))["diff"]:
            if change["path"] == "/keys":
                return [str(key_id) for key_id in change["after"]]
    newest = Checkpoint.objects.order_by("-seq").values_list("note", flat=True).first()
    found = notes.read_all(newest) if newest is not None else []
    if not found:
        return None
    signers = (public for public in signing.trusted_publics() if notes.is_signed(found[0], [public]))
    return [next(map(signing.id_of, signers), UNKNOWN)]
