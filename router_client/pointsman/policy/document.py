"""A parsed document: its data, and where in the text each part stands."""

from __future__ import annotations

import re
from bisect import bisect_right
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
# One character of a quoted text; two halves of a surrogate pair are one.
_CHARACTER = re.compile(
    r"\\(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}"
    r"|x[0-9A-Fa-f]{2}|.)|.",
    re.DOTALL,
)
_QUOTED = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)


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
    _lines: list[int] = field(default_factory=list)  # where each line begins
    _characters: dict[int, list[int]] = field(default_factory=dict)  # of quoted texts with escapes, by start

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of an offset."""
        if not self._lines:
            self._lines = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def within(self, start: int, offset: int) -> int:
        """Where the n-th character of the text at `start` stands, quotes and escapes counted; of a block
        scalar its start.
        """
        quote = self.text[start : start + 1]
        if not offset or quote in ("|", ">"):
            return start
        plain = start + 1 + offset
        if quote == "'":
            return plain + self.text[start + 1 : plain].count("''")
        if quote != '"':
            return start + offset
        if "\\" not in self.text[start + 1 : plain]:
            return plain
        characters = self._characters.get(start)
        if characters is None:
            whole = _QUOTED.match(self.text, start + 1)
            end = whole.end() if whole else start
            found = _CHARACTER.finditer(self.text, start + 1, end)
            characters = self._characters[start] = [match.start() for match in found]
        return characters[offset] if offset < len(characters) else start

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
        return self.source.place(self.source.within(self.source.values[path], offset))


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
