"""Findings in a policy document, with suggestions for corrections."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Near", "Problem", "Severity", "did_you_mean", "join"]

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
    """Return the path of a member: ("rules", 2) gives `rules[2]`, ("rules[2]", "when") gives `rules[2].when`."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
