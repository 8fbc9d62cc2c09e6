"""The duration of long polls, adapted to proxies that cut off long requests.

A proxy with a timeout shorter than the wait (nginx 60 s, Envoy 15 s, some 3 s) answers 504 or 408, resets the
connection, or closes it without a response. This is not a failure of the control plane: the router polls again at
once with half the wait, until polls are no longer cut off. Once an hour it tries the full wait again, in case the proxy
has been reconfigured.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

__all__ = ["CUT_STATUSES", "LongPollWait"]

CUT_STATUSES = frozenset({408, 504})
HELD_S = 1.0  # a poll that ended sooner was not cut off: it failed
_LEAST_S = 3  # a shorter long poll has no advantage over a plain poll
_TRY_AGAIN_S = 3600.0


class LongPollWait:
    """The number of seconds for which polls ask to be held; 0 for plain polls."""

    def __init__(self, longest_s: int, clock: Callable[[], float] = monotonic) -> None:
        self._longest, self._clock = longest_s, clock
        self._seconds = longest_s
        self._cut_at: float | None = None
        self.cuts = 0

    @property
    def seconds(self) -> int:
        """The wait to request now."""
        if self._cut_at is not None and self._clock() - self._cut_at >= _TRY_AGAIN_S:
            self._seconds, self._cut_at = self._longest, None
        return self._seconds

    def was_cut(self, asked_s: int, took_s: float) -> bool:
        """Return whether an unanswered poll was cut off rather than failed. If so, halve the wait of the next one."""
        if asked_s <= 0 or took_s < HELD_S:
            return False
        self.cuts += 1
        self._cut_at = self._clock()
        half = asked_s // 2
        self._seconds = half if half >= _LEAST_S else 0
        return True
