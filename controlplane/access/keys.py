"""API keys: their text and their validity, without the database.

    pmr_production_4fXk0cYb2LqA_<43 random characters><6 characters of CRC-32>
    │   │          │            └ base 62: 256 bits; the checksum detects a mistyped or truncated key without
    │   │          │              a lookup, and lets secret scanners recognise keys
    │   │          └ key id: public, stored, printed in logs
    │   └ environment; empty for an admin key of every environment
    └ pmr: router · pma: admin

The row stores the SHA-256 of the whole text. 256 random bits cannot be guessed, so no slow hash is needed.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from controlplane.core.errors import KeyExpired, KeyRevoked, Unauthenticated

PREFIXES = {"router": "pmr", "admin": "pma"}
_KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(r"(pm[ra])_([A-Za-z0-9_-]{0,64})_([0-9A-Za-z]{12})_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """The parts of a well-formed key. Do not trust them before `check`."""

    kind: str
    environment: str
    key_id: str
    secret_sha256: str


class KeyRecord(Protocol):
    """The fields of the stored row that `check` reads. A cached copy has them, too."""

    @property
    def kind(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def secret_sha256(self) -> str: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def revoked_at(self) -> datetime | None: ...


def new_key_text(kind: str, environment: str) -> tuple[str, str]:
    """Return a new (key id, key text)."""
    key_id = _random_text(12)
    text = f"{PREFIXES[kind]}_{environment}_{key_id}_{_random_text(43)}"
    return key_id, text + _checksum(text)


def parse_key(text: str) -> ParsedKey | None:
    """Return the parts of a key, or None if the shape or the checksum is wrong."""
    match = _KEY.fullmatch(text) if len(text) <= 256 else None
    if match is None or _checksum(text[:-6]) != text[-6:]:
        return None
    prefix, environment, key_id = match.groups()
    return ParsedKey(_KINDS[prefix], environment, key_id, secret_hash(text))


def check(parsed: ParsedKey | None, record: KeyRecord | None, now: datetime) -> None:
    """Raise `Unauthenticated`, `KeyRevoked` or `KeyExpired` unless it is the record's key and valid at `now`.

    An unknown key id and a wrong secret get the same answer, so that callers cannot find out which ids exist.
    """
    if (
        parsed is None
        or record is None
        or not hmac.compare_digest(parsed.secret_sha256, record.secret_sha256)
        or (parsed.kind, parsed.environment) != (record.kind, record.environment)
    ):
        raise Unauthenticated("This key is unknown. Check that you copied all of it.")
    # Also if it lies in the future: the clock may have been ahead then, and put right since.
    if record.revoked_at is not None:
        raise KeyRevoked(f"Key {parsed.key_id} was revoked; ask an admin of Pointsman for a new one.")
    if record.expires_at is not None and record.expires_at <= now:
        raise KeyExpired(f"Key {parsed.key_id} expired at {record.expires_at:%Y-%m-%d %H:%M} UTC; rotate it.")


def secret_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    """Return the CRC-32 in six base-62 characters (62⁶ > 2³²)."""
    value, characters = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, index = divmod(value, 62)
        characters = _ALPHABET[index] + characters
    return characters
