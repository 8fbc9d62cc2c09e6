"""Values allowed in HTTP headers."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["fits_header"]


def fits_header(text: object) -> TypeGuard[str]:
    """Return whether the text is printable ASCII, the only characters that RFC 9110, 5.5 allows a sender to use.

    httpx refuses others and quotes the value, which may be a key, in its message.
    """
    return isinstance(text, str) and text.isascii() and text.isprintable()
