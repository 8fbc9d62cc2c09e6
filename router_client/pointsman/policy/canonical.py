"""The one byte string of a document (RFC 8785, JSON Canonicalization Scheme), and its digest.

Canonical JSON sorts the members of an object, and so loses the order of `models`, which is their rank.
Therefore the canonical document always carries the order as a list, under `rank`: written down if the author
left it to the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import rfc8785

__all__ = ["canonical", "completed", "digest"]


def completed(data: Any) -> Any:
    """The document with its `rank`. Anything that has one, or has no models, is given back as it is."""
    if not isinstance(data, Mapping) or "rank" in data or not isinstance(data.get("models"), Mapping):
        return data
    return {**data, "rank": list(data["models"])}


def canonical(data: Any) -> bytes:
    """Canonical JSON as UTF-8.

    Raises `ValueError` for what JSON cannot say: NaN, integers beyond 2^53, surrogates.
    """
    return rfc8785.dumps(completed(data))


def digest(data: Any) -> str:
    """`sha256:` and 64 hex digits of the canonical bytes: the same for the same document, however it was
    written.
    """
    return f"sha256:{sha256(canonical(data)).hexdigest()}"
