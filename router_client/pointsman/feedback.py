"""Feedback on its way: later words on a task, bounded, in the order they were given.

Sending one twice is harmless: the control plane keeps one word per decision and kind.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

__all__ = ["FeedbackQueue"]

_MOST_AT_ONCE = 500


class FeedbackQueue:
    """Words not yet acknowledged, at most `limit`; the oldest go first when there is no room."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        """Begin anew, empty: a forked child's parent sends what it was given."""
        self._lock = threading.Lock()
        self._words: deque[dict[str, Any]] = deque()
        self._at_once = _MOST_AT_ONCE
        self._first = 0
        self.dropped = 0

    def put(self, word: dict[str, Any]) -> None:
        """Add a word."""
        with self._lock:
            self._words.append(word)
            if len(self._words) > self._limit:
                self._shift(1)
                self.dropped += 1

    def head(self) -> tuple[int, list[dict[str, Any]]]:
        """(position, words to send next); they stay until they are accepted or refused."""
        with self._lock:
            return self._first, [word for word, _ in zip(self._words, range(self._at_once), strict=False)]

    def accept(self, position: int, number: int) -> None:
        """The control plane took these."""
        with self._lock:
            self._shift(position + number - self._first)
            self._at_once = min(_MOST_AT_ONCE, self._at_once * 2)

    def refuse(self, position: int, number: int) -> None:
        """The control plane will not take these. Halving the next request finds the one that it means."""
        with self._lock:
            if number > 1:
                self._at_once = number // 2
                return
            if position >= self._first:
                self._shift(1)
                self.dropped += 1

    def abandon(self) -> int:
        """At the end: drop what is left, count it, and say how much that was."""
        with self._lock:
            left = len(self._words)
            self._shift(left)
            self.dropped += left
            return left

    def __len__(self) -> int:
        return len(self._words)

    def _shift(self, number: int) -> None:
        for _ in range(number):
            self._words.popleft()
            self._first += 1
