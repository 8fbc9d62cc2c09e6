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

__all__ = ["canonical", "completed", "digest"]


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
