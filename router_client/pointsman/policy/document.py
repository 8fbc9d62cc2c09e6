"""A parsed document: its data, and the position of each part in the text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from pointsman.problems import Problem

__all__ = ["KEY", "MAX_BYTES", "MAX_DEPTH", "MAX_INTEGER", "Document", "Locate", "Source"]

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
# The largest integer that a double represents exactly and all JSON parsers agree on (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1

# Locates the name of a member instead of its value.
KEY = -1
# One character of a scalar, by its first character in the text. A line break with the blanks around it is one (a
# space), and so are two breaks (a line feed): YAML 1.2, 6.5. In double quotes, a surrogate pair is one, and an
# escaped line break is none.
# Possessive, and only from the first blank of a run: without that, a run of blanks takes quadratic time.
_FOLD = r"(?:(?<![ \t])[ \t]++)?+\r?\n(?:[ \t]*+\r?\n)?[ \t]*+"
_ESCAPE = (
    r"\\(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}"
    r"|x[0-9A-Fa-f]{2}|.)"
)
_DOUBLE = re.compile(rf"(?:\\\r?\n[ \t]*+)*({_ESCAPE}|{_FOLD}|.)", re.DOTALL)
_SINGLE = re.compile(rf"(''|{_FOLD}|.)", re.DOTALL)
_PLAIN = re.compile(rf"({_FOLD}|.)", re.DOTALL)
_AT_ONCE = 2_048  # the characters of a scalar that are located together: all of a condition


class Locate(Protocol):
    """Returns the position of a path as (line, column), both from 1, or None if unknown."""

    def __call__(self, path: str, offset: int = 0, /) -> tuple[int, int] | None: ...


@dataclass(slots=True)
class Source:
    """The text, the offsets of values and names by path, and the problems found."""

    text: str
    values: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _lines: list[int] = field(default_factory=list)  # offset of each line
    _characters: dict[int, list[int]] = field(
        default_factory=dict
    )  # offsets of the characters of strings with escapes or line breaks, by start

    def place(self, at: int) -> tuple[int, int]:
        """Return the line and column of an offset."""
        if not self._lines:
            self._lines = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def within(self, start: int, offset: int) -> int:
        """Return the position of the n-th character of the string at `start`, taking quotes, escapes and folded
        lines into account; for a block scalar, its start.
        """
        quote = self.text[start : start + 1]
        if not offset or quote in ("|", ">"):
            return start
        first, character = start + (quote in ("'", '"')), {"'": _SINGLE, '"': _DOUBLE}.get(quote, _PLAIN)
        read = self.text[first : first + offset + 1]
        if (
            not read[-1:].isspace()
            and "\n" not in read
            and {"'": "'", '"': "\\"}.get(quote, "\n") not in read
        ):
            return first + offset  # each character is written as it is
        characters = self._characters.get(start, [])
        if offset >= len(characters):
            found = islice(character.finditer(self.text, first), max(offset + 1, _AT_ONCE))
            characters = self._characters[start] = [match.start(1) for match in found]
        return characters[offset] if offset < len(characters) else start

    def problem(self, at: int, code: str, message: str, path: str = "") -> None:
        """Add a problem at an offset."""
        line, column = self.place(at)
        self.problems.append(Problem(path, code, message, "error", line, column))


@dataclass(frozen=True, slots=True)
class Document:
    """`data` as parsed; `locate("rules[2].when")` returns its line and column."""

    data: dict[str, Any]
    source: Source

    def locate(self, path: str, offset: int = 0, /) -> tuple[int, int] | None:
        """Return the position of a value, or with `offset` of a character within a string.

        For a missing value, return the position of its nearest parent.
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
    """Return the value if it is an object, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}
