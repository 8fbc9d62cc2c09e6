"""The hash chain, without Django, so that its rules can be read and tested on their own.

    body = RFC 8785 bytes of the entry          leaf = SHA-256(0x00 ‖ body)
    H0   = SHA-256("pointsman.audit.v1.genesis" ‖ 0x00 ‖ chain id)
    Hn   = SHA-256("pointsman.audit.v1" ‖ 0x00 ‖ Hn−1 ‖ leaf)

If somebody inserted a row ahead of the log or tampered with the head, the log continues after a special hash, so that
no row can stop Pointsman from writing:

    Hn−1 = SHA-256("pointsman.audit.v1.resume" ‖ 0x00 ‖ hash of the last entry that is Pointsman's ‖ what was found)

The prefixes separate the three kinds of hash: no body can pass for a link, and no chain's start for another's
(RFC 9162 2.1 does the same for Merkle trees). `docs/verify_audit.py` implements the rules without Pointsman.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import rfc8785

VERSION = 1
_GENESIS = b"pointsman.audit.v1.genesis\0"
_LINK = b"pointsman.audit.v1\0"
_RESUME = b"pointsman.audit.v1.resume\0"
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SAFE_INTEGER = 2**53  # RFC 8785 writes numbers as IEEE 754 doubles, which would round larger integers


def genesis(chain: str) -> str:
    """Return the hash before the first entry (hex)."""
    return hashlib.sha256(_GENESIS + chain.encode()).hexdigest()


def link(previous: str, body: bytes) -> str:
    """Return the hash of an entry (hex), given the previous hash (hex) and the entry's body."""
    leaf = hashlib.sha256(b"\0" + body).digest()
    return hashlib.sha256(_LINK + bytes.fromhex(previous) + leaf).hexdigest()


def resume(base: str, found: Any) -> str:
    """Return the hash (hex) used as the previous one when the log continues after entry `base` (hex)."""
    return hashlib.sha256(_RESUME + base.encode() + canonical(found)).hexdigest()


def is_hash(text: Any) -> bool:
    """Return whether this is a SHA-256 in the log's format: 64 lower-case hex digits."""
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 bytes of any value that `plain` can convert to JSON."""
    return rfc8785.dumps(plain(value))


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def plain(value: Any) -> Any:
    """Convert a value to JSON with a single representation and no loss: exact numbers and times become text."""
    match value:
        case None | bool():
            return value
        case Enum():
            return plain(value.value)
        case str():
            return plain_text(value)
        case int():
            return value if abs(value) < _SAFE_INTEGER else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime():
            return timestamp(value)
        case date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case Mapping():
            return {plain_text(str(key)): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(plain(item) for item in value)
        case _:
            return plain_text(str(value))  # UUIDs and model instances become text


def plain_text(value: str) -> str:
    """Return text that both databases and UTF-8 can store: NUL and lone surrogates become U+FFFD."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def timestamp(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, always with six decimals, so that text order is time order."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def difference(before: Any, after: Any, path: str = "") -> list[dict[str, Any]]:
    """List the changes, one item per place: a JSON pointer with `before` and `after`. An absent side has no key.

    Objects are compared member by member. A changed list is one change, because its positions have no names.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        changes = []
        for key in sorted({*before, *after}):
            there = path + "/" + key.replace("~", "~0").replace("/", "~1")
            if key not in before:
                changes.append({"path": there, "after": after[key]})
            elif key not in after:
                changes.append({"path": there, "before": before[key]})
            else:
                changes.extend(difference(before[key], after[key], there))
        return changes
    # `True == 1` in Python, but they differ in JSON.
    same = before == after and isinstance(before, bool) == isinstance(after, bool)
    return [] if same else [{"path": path, "before": before, "after": after}]
