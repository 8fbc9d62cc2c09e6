"""Waiting times after failures, with full jitter so that a fleet does not return all at once."""

from __future__ import annotations

import random

__all__ = ["Backoff"]

# The protocol allows 60 s. With 30 s a router returns within a minute of the control plane's start, however long
# that takes.
LONGEST_S = 30.0
# The longest wait that a control plane, or something in between, can impose: a poll interval or `Retry-After`. A pin or
# a rollback must reach a router that was once told to wait for days.
LONGEST_TOLD_S = 300.0
_FIRST_S = 1.0


class Backoff:
    """Count failures in a row and compute the wait: rand(0, min(30 s, 2^n s)), but at least `Retry-After`."""

    def __init__(self, random_source: random.Random | None = None) -> None:
        self.failures = 0
        self.told = False  # whether the last failure had a Retry-After
        self._random = random_source or random.Random()  # noqa: S311 - spreads load, protects nothing

    def success(self) -> None:
        self.failures = 0

    def failure(self, retry_after_s: float | None = None) -> float:
        """Count a failure and return the seconds to wait."""
        self.failures += 1
        self.told = retry_after_s is not None
        ceiling = min(LONGEST_S, _FIRST_S * 2.0 ** min(self.failures - 1, 16))
        wait = self._random.uniform(0, ceiling)
        if retry_after_s is None:
            return wait
        # All routers got the same time, so spread the requests after it as well.
        return retry_after_s + min(wait, 0.1 * retry_after_s + 1)

    def spread(self, seconds: float) -> float:
        """Return `seconds` ± 20 % at random, so that routers started together do not stay in step."""
        return seconds * self._random.uniform(0.8, 1.2)

    def first(self, within_s: float) -> float:
        """Return the wait before the first request: rand(0, within)."""
        return self._random.uniform(0, within_s)
