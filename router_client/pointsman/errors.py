"""What can go wrong, as a tree.

PointsmanError
├── PolicyInvalid          a document that must not run; `.problems` names all of them
├── SnapshotRefused        a snapshot that the router does not apply; `.code` says why
├── TokenInvalid           a `decision_id` that this library did not make, or that was cut
└── ConfigurationError     the caller's own set-up: a missing extra, a bad argument

None of these ever comes out of `decide()` or `next()`: a request is always answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman.problems import Problem

__all__ = ["ConfigurationError", "PointsmanError", "PolicyInvalid", "SnapshotRefused", "TokenInvalid"]


class PointsmanError(Exception):
    """The root: catch this to catch whatever the library raises on purpose."""


class PolicyInvalid(PointsmanError):
    """A policy document that must not run. `problems` holds every finding, warnings included."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SnapshotRefused(PointsmanError):
    """A snapshot that is not applied; the router keeps what it has. `code` is stable, for metrics."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class TokenInvalid(PointsmanError):
    """A `decision_id` that cannot be read back."""


class ConfigurationError(PointsmanError):
    """The caller's set-up cannot work; the message says what to change."""
