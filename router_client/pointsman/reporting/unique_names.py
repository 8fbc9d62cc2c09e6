"""Refuse JSON objects with duplicate names (RFC 8259 section 4, I-JSON RFC 7493 section 2.3).

Of two members with the same name, some parsers keep the first and others the last. Both the control plane and the
fake one for tests refuse such ambiguous documents.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DuplicateName", "unique"]


class DuplicateName(ValueError):  # noqa: N818 - named for what happened
    """An object has two members with this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The key {name[:80]!r} occurs twice in one object.")
        self.name = name


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object for `json.loads(…, object_pairs_hook=unique)`. Raises `DuplicateName`."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise DuplicateName(name)
        seen.add(name)
    return found
