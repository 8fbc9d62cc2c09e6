"""A finding in a policy document, and the words that help to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Near", "Problem", "Severity", "did_you_mean", "join"]

Severity = Literal["error", "warning"]
Near = tuple[object, Collection[str]]  # a word that is not known, and those that are


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `path` is like `rules[2].when` (empty: the whole document); lines and columns count from
    1.
    """

    path: str
    code: str
    message: str
    severity: Severity = "error"
    line: int | None = None
    column: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON: path, code, message, severity, line and column (null when not from text)."""
        return asdict(self)

    def __str__(self) -> str:
        where = self.path or "document"
        if self.line is not None:
            where += f" (line {self.line}, column {self.column})"
        return f"{where}: {self.message} [{self.code}]"


def did_you_mean(word: object, known: Collection[str]) -> str:
    """`; did you mean "large"?`, or nothing when no known word is near. A last part counts for the whole:
    `priority` means `request.priority`.
    """
    # A long word is no misspelling, and comparing it would take quadratic time.
    if not isinstance(word, str) or len(word) > 128:
        return ""
    whole = next((name for name in known if name.endswith(word) and name.rpartition(".")[2] == word), None)
    if whole is not None:
        return f'; did you mean "{whole}"?'
    letters = set(word)
    # A cheap look first: difflib is slow, and a hostile document has thousands of misspelt words.
    alike = [name for name in known if abs(len(name) - len(word)) <= 3 and len(letters ^ set(name)) <= 4]
    near = difflib.get_close_matches(word, alike[:10], n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def join(path: str, step: str | int) -> str:
    """The path of a member: ("rules", 2) is `rules[2]`, ("rules[2]", "when") is `rules[2].when`."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
