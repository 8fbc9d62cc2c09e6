"""The exceptions of this library, as a tree.

PointsmanError
├── PolicyInvalid          an invalid policy document; `.problems` lists its problems
├── SnapshotRefused        a snapshot that the router does not apply; `.code` says why
├── TokenInvalid           a `decision_id` that was truncated or not made by this library
└── ConfigurationError     a mistake in the caller's set-up: a missing extra, a bad argument

`decide()` and `next()` never raise any of these: every request gets a decision.
"""

from __future__ import annotations

from collections.abc import Sequence

from pointsman.problems import Problem, first_of

__all__ = ["ConfigurationError", "PointsmanError", "PolicyInvalid", "SnapshotRefused", "TokenInvalid"]


class PointsmanError(Exception):
    """The base class of all exceptions that the library raises deliberately."""


class PolicyInvalid(PointsmanError):
    """An invalid policy document. `problems` contains the findings, including warnings; of more than 50, the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(first_of(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SnapshotRefused(PointsmanError):
    """A snapshot that is not applied; the router keeps its current one. `code` is stable, for metrics."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class TokenInvalid(PointsmanError):
    """A `decision_id` that cannot be decoded."""


class ConfigurationError(PointsmanError):
    """The caller's set-up cannot work; the message says what to change."""
