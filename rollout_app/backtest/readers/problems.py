"""Problems of a file by row and column: the first ones of each kind, and the number of further ones."""

from collections import Counter
from dataclasses import dataclass

from pointsman.plurals import counted

SHOWN = 20  # per kind


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
    """Raised for a file that is refused. Its text lists the first 20 problems of each kind and counts the rest."""

    def __init__(self, source: str, problems: "Problems") -> None:
        self.source, self.problems = source, problems
        super().__init__(problems.text(source))


class Problems:
    """Collects problems while reading continues."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: list[RowProblem] = []

    def add(self, row: int, column: str, kind: str, message: str) -> None:
        """Count the problem, and store it if it is among the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.shown.append(RowProblem(row, column, kind, message))

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
        for kind, count in self.counts.items():
            lines += [str(problem) for problem in self.shown if problem.kind == kind]
            if count > SHOWN:
                lines.append(f"… and {count - SHOWN:,} more of this kind ({kind}).")
        return lines
