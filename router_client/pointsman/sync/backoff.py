"""How long to wait after failures: full jitter, so that a fleet does not come back all at once."""

from __future__ import annotations

import random

__all__ = ["Backoff"]

# The protocol allows 60 s. With half of it a router is back within a minute of the control plane's start, whatever
# that takes.
LONGEST_S = 30.0
_FIRST_S = 1.0


class Backoff:
    """Failures in a row, and the wait they earn: rand(0, min(30 s, 2^n s)), never before `Retry-After`."""

    def __init__(self, random_source: random.Random | None = None) -> None:
        self.failures = 0
        self.told = False  # the last failure said when to come again
        self._random = random_source or random.Random()  # noqa: S311 - spreads load, protects nothing

    def success(self) -> None:
        self.failures = 0

    def failure(self, retry_after_s: float | None = None) -> float:
        """Count a failure; the seconds to wait now."""
        self.failures += 1
        self.told = retry_after_s is not None
        ceiling = min(LONGEST_S, _FIRST_S * 2.0 ** min(self.failures - 1, 16))
        wait = self._random.uniform(0, ceiling)
        if retry_after_s is None:
            return wait
        # Everybody was told the same moment: spread over what follows it, too.
        return retry_after_s + min(wait, 0.1 * retry_after_s + 1)

    def spread(self, seconds: float) -> float:
        """About `seconds`, a fifth to either side: a fleet that started together falls out of step."""
        return seconds * self._random.uniform(0.8, 1.2)

    def first(self, within_s: float) -> float:
        """The wait before the first request: rand(0, within)."""
        return self._random.uniform(0, within_s)
