"""The canonical bytes of a document (RFC 8785, JSON Canonicalization Scheme), and its digest.

Canonical JSON sorts the members of an object, and so loses the order of `models`, which is their rank.
Therefore the canonical document always contains the order as a list, `rank`, which is added if the author
omitted it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import rfc8785

__all__ = ["canonical", "completed", "digest", "plain", "reads_as_integer"]

# RFC 8785, 3.2.2.3 (ECMAScript's Number::toString): smaller whole doubles have no exponent.
_EXPONENT_FROM = 1e21


def plain(data: Any) -> Any:
    """Return the document with whole doubles as integers, as canonical JSON writes them and routers read them."""
    if isinstance(data, Mapping):
        return {name: plain(value) for name, value in data.items()}
    if isinstance(data, list):
        return [plain(value) for value in data]
    return int(data) if isinstance(data, float) and reads_as_integer(data) else data


def reads_as_integer(value: float) -> bool:
    """Return whether canonical JSON writes the double as an integer: 200.0 as `200`."""
    return value.is_integer() and abs(value) < _EXPONENT_FROM


def completed(data: Any) -> Any:
    """Return the document with its `rank`. A document that has one, or has no models, is returned unchanged."""
    if not isinstance(data, Mapping) or "rank" in data or not isinstance(data.get("models"), Mapping):
        return data
    return {**data, "rank": list(data["models"])}


def canonical(data: Any) -> bytes:
    """Return canonical JSON as UTF-8.

    Raises `ValueError` for values that JSON cannot represent: NaN, integers beyond 2^53, surrogates.
    """
    return rfc8785.dumps(completed(data))


def digest(data: Any) -> str:
    """Return `sha256:` and 64 hex digits of the canonical bytes, independent of how the document was written."""
    return f"sha256:{sha256(canonical(data)).hexdigest()}"
