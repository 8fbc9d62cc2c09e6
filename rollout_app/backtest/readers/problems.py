"""What is wrong with a file, by row and column: the first of each kind, and how many more."""

from collections import Counter
from dataclasses import dataclass

SHOWN = 20  # of each kind


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One value that can't be read. Rows count from 1, a header not among them; 0: no row."""

    row: int
    column: str
    kind: str
    message: str

    def __str__(self) -> str:
        places = [f"row {self.row:,}" if self.row else "", f"column {self.column}" if self.column else ""]
        return ": ".join(filter(None, (", ".join(filter(None, places)), self.message)))


class UnreadableTasks(ValueError):
    """A file that is refused. Its text names the first 20 problems of each kind and counts the rest."""

    def __init__(self, source: str, problems: "Problems") -> None:
        self.source, self.problems = source, problems
        super().__init__(problems.text(source))


class Problems:
    """Collects what is wrong while the file is read on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: list[RowProblem] = []

    def add(self, row: int, column: str, kind: str, message: str) -> None:
        """Count it; keep the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.shown.append(RowProblem(row, column, kind, message))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def text(self, source: str) -> str:
        """All that is known, a line each."""
        total = sum(self.counts.values())
        lines = [
            f"{source} can't be read: {total:,} {'problem' if total == 1 else 'problems'}. Nothing was used."
        ]
        for kind, count in self.counts.items():
            lines += [f"  {problem}" for problem in self.shown if problem.kind == kind]
            if count > SHOWN:
                lines.append(f"  … and {count - SHOWN:,} more of this kind ({kind}).")
        return "\n".join(lines)
