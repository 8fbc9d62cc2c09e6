"""Messages waiting to be acknowledged: in memory, and on disk if there is a spool. Both are bounded and counted.

A message stays until it is accepted, refused or displaced. A message displaced from memory stays on disk, and
is loaded again when there is room. The oldest is displaced first, because a running rollout is judged by
the newest evidence.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from pointsman.logs import log
from pointsman.reporting.batch import Message

if TYPE_CHECKING:
    from pointsman.reporting.spool import SpoolFiles

__all__ = ["Outbox"]


P = TypeVar("P", bound=Message)


class Outbox(Generic[P]):
    """A queue of messages. Thread-safe; no call waits for the network.

    max_bytes   limit for bodies in memory
    dropped     number of items dropped for lack of room, or unsent at the end
    """

    def __init__(self, max_bytes: int, spool: SpoolFiles[P] | None = None) -> None:
        self.dropped = 0
        self._max_bytes, self._spool = max_bytes, spool
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, P] = OrderedDict()
        # What was postponed: until when (monotonic), and for how many seconds.
        self._later: dict[str, tuple[float, float]] = {}
        self._bytes = 0
        self._expected = 0

    def expect(self, count: int) -> None:
        """Announce items that are about to be queued; negative once they were. They already count as waiting.

        Call it together with their removal from the previous place; otherwise nothing seems to wait for a moment.
        """
        with self._lock:
            self._expected += count

    def put(self, message: P) -> None:
        """Queue a message, on disk first."""
        if self._spool is not None:
            try:
                removed = self._spool.put(message)
                with self._lock:  # what memory still holds may yet be sent
                    self.dropped += sum(old.count for old in removed if old.id not in self._waiting)
            except OSError as error:
                log.warning("%s stays in memory only: %s", message.id, error)
        self._hold(message)

    def adopt(self) -> None:
        """Load messages that another process left on disk, or for which there was no room in memory."""
        if self._spool is None:
            return
        for message in self._spool.orphans(set(self._waiting)):
            if self._bytes + len(message.body) > self._max_bytes:
                return
            self._hold(message)

    def oldest(self, now: float | None = None) -> P | None:
        """Return the message to send next; it stays queued until it is forgotten or replaced.

        With `now`, only one that was due at that (monotonic) time.
        """
        now = monotonic() if now is None else now
        with self._lock:
            due = (one for one in self._waiting.values() if self._later.get(one.id, (now, 0.0))[0] <= now)
            return next(due, None)

    def postpone(self, message: P, seconds: float, up_to: float | None = None) -> bool:
        """Send the others first. Return whether it is the first time for this message.

        With `up_to`, each further time is twice as long as the last one, up to so many seconds.
        """
        with self._lock:
            last = self._later.get(message.id)
            if last is not None and up_to is not None:
                seconds = min(max(seconds, 2 * last[1]), up_to)
            self._later[message.id] = monotonic() + seconds, seconds
        return last is None

    def forget(self, message: P) -> None:
        """Remove a message that was accepted or never will be."""
        with self._lock, suppress(KeyError):
            self._later.pop(message.id, None)
            del self._waiting[message.id]
            self._bytes -= len(message.body)
        if self._spool is not None:
            self._spool.remove(message.id)

    def replace(self, message: P, parts: list[P]) -> None:
        """Replace a message by others. They are written to disk before the original is removed; after a crash in
        between, the same parts are created again.
        """
        for part in parts:
            self.put(part)
        self.forget(message)

    def abandon(self) -> int:
        """At the end, drop and count the messages not on disk. Return the number of their items."""
        with self._lock:
            lost = sum(
                p.count for p in self._waiting.values() if self._spool is None or p.id not in self._spool
            )
            self._waiting, self._later, self._bytes = OrderedDict(), {}, 0
            self.dropped += lost
        return lost

    @property
    def count(self) -> int:
        """Number of items waiting in memory; briefly doubled while they are queued."""
        with self._lock:
            return self._expected + sum(message.count for message in self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)

    def _hold(self, message: P) -> None:
        with self._lock:
            # After a crash, a part of a replaced message may have been loaded from disk already.
            if (same := self._waiting.get(message.id)) is not None:
                self._bytes -= len(same.body)
            self._waiting[message.id] = message
            self._bytes += len(message.body)
            while self._bytes > self._max_bytes and len(self._waiting) > 1:
                _, oldest = self._waiting.popitem(last=False)
                self._bytes -= len(oldest.body)
                self._later.pop(oldest.id, None)
                if self._spool is None or oldest.id not in self._spool:
                    self.dropped += oldest.count
