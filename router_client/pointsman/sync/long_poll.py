"""How long a poll may hang, where something in between cuts what hangs too long.

A proxy with a time limit shorter than the wait (nginx 60 s, Envoy 15 s, some 3 s) answers 504 or 408, resets the
connection, or closes it without a word. That is no failure of the control plane: the router asks again at once, for
half the wait, until nothing is cut any more. It tries the whole wait again once an hour: proxies are reconfigured.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

__all__ = ["CUT_STATUSES", "LongPollWait"]

CUT_STATUSES = frozenset({408, 504})
HELD_S = 1.0  # a poll that ended sooner was not cut: it failed
_LEAST_S = 3  # below it a plain poll costs as little
_TRY_AGAIN_S = 3600.0


class LongPollWait:
    """The seconds that a poll asks to be held; 0 for a plain poll."""

    def __init__(self, longest_s: int, clock: Callable[[], float] = monotonic) -> None:
        self._longest, self._clock = longest_s, clock
        self._seconds = longest_s
        self._cut_at: float | None = None
        self.cuts = 0

    @property
    def seconds(self) -> int:
        """What to ask for now."""
        if self._cut_at is not None and self._clock() - self._cut_at >= _TRY_AGAIN_S:
            self._seconds, self._cut_at = self._longest, None
        return self._seconds

    def was_cut(self, asked_s: int, took_s: float) -> bool:
        """Whether a poll that brought no answer was cut, and not failed. If it was, the next asks for half."""
        if asked_s <= 0 or took_s < HELD_S:
            return False
        self.cuts += 1
        self._cut_at = self._clock()
        half = asked_s // 2
        self._seconds = half if half >= _LEAST_S else 0
        return True
