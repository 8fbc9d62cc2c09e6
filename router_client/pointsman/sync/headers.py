"""What a header can carry."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["fits_header"]


def fits_header(text: object) -> TypeGuard[str]:
    """Printable ASCII: RFC 9110, 5.5 lets a sender use no more, and httpx refuses, and quotes, the rest."""
    return isinstance(text, str) and text.isascii() and text.isprintable()
