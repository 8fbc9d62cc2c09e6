"""The one byte string of a document (RFC 8785, JSON Canonicalization Scheme), and its digest."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import rfc8785

__all__ = ["canonical", "digest"]


def canonical(data: Any) -> bytes:
    """Canonical JSON as UTF-8. Raises `ValueError` for what JSON cannot say: NaN, integers beyond 2^53, surrogates."""
    return rfc8785.dumps(data)


def digest(data: Any) -> str:
    """`sha256:` and 64 hex digits of the canonical bytes: the same for the same document, however it was written."""
    return f"sha256:{sha256(canonical(data)).hexdigest()}"
