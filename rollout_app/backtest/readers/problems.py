"""Problems of a file by row and column: the first ones of each kind, and the number of further ones."""

from collections import Counter
from dataclasses import dataclass

from pointsman.plurals import counted

SHOWN = 20  # per kind
KINDS = 100  # a table can have a kind for each of its columns


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One value that cannot be read. Rows count from 1 without the header; 0: no row."""

    row: int
    column: str
    kind: str
    message: str

    def __str__(self) -> str:
        places = [f"row {self.row:,}" if self.row else "", f"column {self.column}" if self.column else ""]
        return ": ".join(filter(None, (", ".join(filter(None, places)), self.message)))


class UnreadableTasks(ValueError):
    """Raised for a file that is refused.

    Its text lists the first 20 problems of each of the first 100 kinds, and counts the rest.
    """

    def __init__(self, source: str, problems: "Problems") -> None:
        self.source, self.problems = source, problems
        super().__init__(problems.text(source))


class Problems:
    """Collects problems while reading continues."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: dict[str, list[RowProblem]] = {}  # by kind

    def add(self, row: int, column: str, kind: str, message: str) -> None:
        """Count the problem, and store it if it is among the first of its kind."""
        self.counts[kind] += 1
        if len(self.shown) >= KINDS and kind not in self.shown:
            return
        if self.counts[kind] <= SHOWN:
            self.shown.setdefault(kind, []).append(RowProblem(row, column, kind, message))

    def merge(self, others: "Problems") -> None:
        """Add the problems of another reading."""
        self.counts.update(others.counts)
        for kind, problems in others.shown.items():
            self.shown.setdefault(kind, []).extend(problems)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def text(self, source: str) -> str:
        """Describe the problems, one per line."""
        total = sum(self.counts.values())
        first = f"{source} can't be read: {counted(total, 'problem')}. Nothing was used."
        return "\n".join([first, *(f"  {line}" for line in self.lines())])

    def lines(self) -> list[str]:
        """Describe the first problems of each kind, and count the others."""
        lines: list[str] = []
        for kind, problems in self.shown.items():
            lines += map(str, problems)
            if (count := self.counts[kind]) > SHOWN:
                lines.append(f"… and {count - SHOWN:,} more of this kind ({kind}).")
        if kinds := len(self.counts) - len(self.shown):
            more = sum(self.counts.values()) - sum(self.counts[kind] for kind in self.shown)
            lines.append(f"… and {more:,} more of {counted(kinds, 'other kind')}.")
        return lines
