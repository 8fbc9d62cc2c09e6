"""A parsed document: its data, and where in the text each part stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pointsman.problems import Problem

__all__ = ["KEY", "MAX_BYTES", "MAX_DEPTH", "MAX_INTEGER", "Document", "Locate", "Source"]

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
# What a double holds exactly, and so what every JSON reader agrees on (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1

# Ask for the place of a member's name instead of its value.
KEY = -1
_ESCAPE = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|.)|.", re.DOTALL)


class Locate(Protocol):
    """Where a path stands: (line, column), both from 1, or None when that is not known."""

    def __call__(self, path: str, offset: int = 0, /) -> tuple[int, int] | None: ...


@dataclass(slots=True)
class Source:
    """The text and what was found in it: values and names by path, as offsets; and the problems."""

    text: str
    values: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of an offset."""
        return self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)

    def problem(self, at: int, code: str, message: str, path: str = "") -> None:
        """Note a problem at an offset."""
        line, column = self.place(at)
        self.problems.append(Problem(path, code, message, "error", line, column))


@dataclass(frozen=True, slots=True)
class Document:
    """`data` as parsed; `locate("rules[2].when")` gives the line and column where it stands."""

    data: dict[str, Any]
    source: Source

    def locate(self, path: str, offset: int = 0, /) -> tuple[int, int] | None:
        """Where a value stands, or with `offset` the character within a text.

        What is not there: its nearest parent.
        """
        found = path
        while found not in self.source.values:
            found = re.sub(r"(?:^|\.)[^.\[\]]*$|\[\d+\]$", "", found) if found else ""
        if found != path:
            return self.source.place(self.source.values[found])
        if offset == KEY:
            return self.source.place(self.source.names.get(path, self.source.values[path]))
        return self.source.place(_within(self.source.text, self.source.values[path], offset))


def _within(text: str, start: int, offset: int) -> int:
    """The offset of a text's n-th character in the source, quotes and escapes counted; block scalars: their
    start.
    """
    quote = text[start : start + 1]
    if not offset or quote in ("|", ">"):
        return start
    if quote == '"':
        at = start + 1
        for _ in range(offset):
            match = _ESCAPE.match(text, at)
            if match is None:
                return start
            at = match.end()
        return at
    if quote == "'":
        return start + 1 + offset + text[start + 1 : start + 1 + offset].count("''")
    return start + offset


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
