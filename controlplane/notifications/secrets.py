"""The signing secrets of receivers, and the URLs that are secrets themselves."""

import base64
import hashlib
import os
from contextlib import suppress
from datetime import datetime
from typing import Any

from controlplane.notifications.models import Receiver
from controlplane.notifications.sealing import UNREADABLE, Unreadable, seal, unseal

_BYTES = 32  # Standard Webhooks: 24 to 64


def new_secret() -> tuple[str, dict[str, Any]]:
    """Create a signing secret. Return its text (`whsec_…`), shown only once, and its stored form."""
    raw = os.urandom(_BYTES)
    text = f"whsec_{base64.b64encode(raw).decode()}"
    return text, {"sealed": seal(text), "fingerprint": fingerprint(text), "until": None}


def signing(receiver: Receiver, now: datetime) -> list[str]:
    """Return the active signing secrets, newest first. Raises `Unreadable` if none can be read.

    After a rotation the previous secret stays active for a day. If it is the unreadable one, the new one signs alone.
    """
    found: list[str] = []
    for kept in receiver.secrets:
        if lives(kept, now):
            with suppress(Unreadable):
                found.append(unseal(kept["sealed"]))
    if not found:
        raise Unreadable(UNREADABLE)
    return found


def lives(kept: dict[str, Any], now: datetime) -> bool:
    return kept["until"] is None or datetime.fromisoformat(kept["until"]) > now


def slack_address(receiver: Receiver) -> str:
    """Return the full Slack URL. Raises `Unreadable`."""
    return unseal(receiver.sealed_address)


def fingerprint(text: str) -> str:
    """Return a short hash that identifies a secret without revealing it: secrets have 256 random bits."""
    return hashlib.sha256(f"pointsman.webhook {text}".encode()).hexdigest()[:16]
