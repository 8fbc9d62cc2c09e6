"""Findings in a policy document, with suggestions for corrections."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Near", "Problem", "Severity", "did_you_mean", "first_of", "join"]

LISTED = 50  # more problems of one document are only counted
_LONGEST_STEP = 120  # characters of a name in a path

Severity = Literal["error", "warning"]
Near = tuple[object, Collection[str]]  # an unknown word, and the known ones


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `path` is like `rules[2].when` (empty: the whole document); lines and columns start at 1."""

    path: str
    code: str
    message: str
    severity: Severity = "error"
    line: int | None = None
    column: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for JSON: path, code, message, severity, line and column (None if not from text)."""
        return asdict(self)

    def __str__(self) -> str:
        where = self.path or "document"
        if self.line is not None:
            where += f" (line {self.line}, column {self.column})"
        return f"{where}: {self.message} [{self.code}]"


def first_of(problems: Sequence[Problem]) -> list[Problem]:
    """Return the first 50 problems in their order, errors before warnings, and an entry that counts the others.

    Each names its place, so a small document could have an answer of megabytes.
    """
    if len(problems) <= LISTED:
        return list(problems)
    chosen = sorted(range(len(problems)), key=lambda at: problems[at].severity != "error")[:LISTED]
    errors = sum(problem.severity == "error" for problem in problems)
    severity: Severity = "error" if errors > LISTED else "warning"
    rest = len(problems) - LISTED
    more = Problem("", "more_problems", f"and {rest:,} more", severity)
    return [*(problems[at] for at in sorted(chosen)), more]


def did_you_mean(word: object, known: Collection[str]) -> str:
    """Return `; did you mean "large"?`, or an empty string if no known word is similar. The last part of a
    dotted name suffices: `priority` suggests `request.priority`.
    """
    # A long word is not a misspelling, and comparing it would take quadratic time.
    if not isinstance(word, str) or len(word) > 128:
        return ""
    whole = next((name for name in known if name.endswith(word) and name.rpartition(".")[2] == word), None)
    if whole is not None:
        return f'; did you mean "{whole}"?'
    letters = set(word)
    # Filter cheaply first: difflib is slow, and a hostile document may have thousands of misspelt words.
    alike = [name for name in known if abs(len(name) - len(word)) <= 3 and len(letters ^ set(name)) <= 4]
    near = difflib.get_close_matches(word, alike[:10], n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def join(path: str, step: str | int) -> str:
    """Return the path of a member: ("rules", 2) gives `rules[2]`, ("rules[2]", "when") gives `rules[2].when`.

    A longer name than any policy has is cut: every member below it has it in its path.
    """
    if isinstance(step, int):
        return f"{path}[{step}]"
    step = step[:_LONGEST_STEP]
    return f"{path}.{step}" if path else step
