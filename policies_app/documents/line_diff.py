"""Compare two texts side by side, line by line."""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_CONTEXT = 3  # unchanged lines shown around a change
_MOST_PAIRS = 1_000_000  # of lines to compare: half a second; 64 KiB of one-line lists would take minutes


@dataclass(frozen=True, slots=True)
class DiffCell:
    """One line of one side: its number (from 1), and its text split around the changed part."""

    number: int
    start: str
    changed: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class DiffRow:
    """A line of both sides, or of one. If `hidden` > 0, the row stands for that many equal lines."""

    kind: Literal["same", "changed", "removed", "added", "gap"]
    left: DiffCell | None = None
    right: DiffCell | None = None
    hidden: int = 0


def side_by_side(before: str, after: str) -> list[DiffRow]:
    """Return both texts line by line, with unchanged parts shortened to a few lines around each change."""
    left, right = before.splitlines(), after.splitlines()
    rows: list[DiffRow] = []
    blocks = _blocks(left, right)
    for index, (tag, i1, i2, j1, j2) in enumerate(blocks):
        if tag == "equal":
            equal = [_same(i + 1, j + 1, left[i]) for i, j in zip(range(i1, i2), range(j1, j2), strict=True)]
            rows += _shortened(equal, first=index == 0, last=index == len(blocks) - 1)
        else:
            rows += _changed(left, right, i1, i2, j1, j2)
    return rows


def _blocks(left: list[str], right: list[str]) -> list[tuple[str, int, int, int, int]]:
    """Return the opcodes of `difflib` that turn one list into the other.

    Of very long texts, all between their common start and their common end counts as replaced.
    """
    if len(left) * len(right) <= _MOST_PAIRS:
        return list(difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes())
    start = _shared(left, right)
    end = _shared(left[start:][::-1], right[start:][::-1])
    stops = len(left) - end, len(right) - end
    blocks = [
        ("equal", 0, start, 0, start),
        ("replace", start, stops[0], start, stops[1]),
        ("equal", stops[0], len(left), stops[1], len(right)),
    ]
    return [block for block in blocks if block[1] < block[2] or block[3] < block[4]]


def _shared(left: list[str], right: list[str]) -> int:
    """Return how many lines are the same at the start of both."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))


def _same(left: int, right: int, text: str) -> DiffRow:
    return DiffRow("same", DiffCell(left, text), DiffCell(right, text))


def _shortened(rows: list[DiffRow], *, first: bool, last: bool) -> list[DiffRow]:
    head = 0 if first else _CONTEXT
    tail = 0 if last else _CONTEXT
    hidden = len(rows) - head - tail
    if hidden < 2:
        return rows
    return [*rows[:head], DiffRow("gap", hidden=hidden), *rows[len(rows) - tail :]]


def _changed(left: list[str], right: list[str], i1: int, i2: int, j1: int, j2: int) -> Iterator[DiffRow]:
    both = min(i2 - i1, j2 - j1)
    for offset in range(both):
        was, now = left[i1 + offset], right[j1 + offset]
        start = len(os.path.commonprefix([was, now]))
        end = len(os.path.commonprefix([was[start:][::-1], now[start:][::-1]]))
        left_side = _marked(i1 + offset + 1, was, start, end)
        yield DiffRow("changed", left_side, _marked(j1 + offset + 1, now, start, end))
    for i in range(i1 + both, i2):
        yield DiffRow("removed", left=DiffCell(i + 1, left[i]))
    for j in range(j1 + both, j2):
        yield DiffRow("added", right=DiffCell(j + 1, right[j]))


def _marked(number: int, text: str, start: int, end: int) -> DiffCell:
    stop = len(text) - end
    return DiffCell(number, text[:start], text[start:stop], text[stop:])
