"""What waits to be acknowledged: in memory, and on disk where there is a spool. Bounded in both, and counted.

Nothing leaves before it was taken, refused or crowded out; what is crowded out of memory stays on disk, and
is taken up again when there is room. The oldest goes first, because the newest evidence is what a running
rollout is judged by.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from pointsman.reporting.batch import Message

if TYPE_CHECKING:
    from pointsman.reporting.spool import SpoolFiles

__all__ = ["Outbox"]

log = logging.getLogger("pointsman")


P = TypeVar("P", bound=Message)


class Outbox(Generic[P]):
    """Messages in line. Thread-safe; no call waits for the network.

    max_bytes   of bodies in memory
    dropped     how many things found no room, or were left at the end
    """

    def __init__(self, max_bytes: int, spool: SpoolFiles[P] | None = None) -> None:
        self.dropped = 0
        self._max_bytes, self._spool = max_bytes, spool
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, P] = OrderedDict()
        self._bytes = 0
        self._expected = 0

    def expect(self, count: int) -> None:
        """So many things more are about to be put in line; negative: they were. They wait already.

        Say it in the same breath in which they leave where they were, or for a moment nothing seems to wait.
        """
        with self._lock:
            self._expected += count

    def put(self, message: P) -> None:
        """Put it in line, on disk first."""
        if self._spool is not None:
            try:
                gone = sum(old.count for old in self._spool.put(message))
                with self._lock:
                    self.dropped += gone
            except OSError as error:
                log.warning("%s stays in memory only: %s", message.id, error)
        self._hold(message)

    def adopt(self) -> None:
        """Take up what another process left on disk, or what memory had no room for."""
        if self._spool is None:
            return
        for message in self._spool.orphans(set(self._waiting)):
            if self._bytes + len(message.body) > self._max_bytes:
                return
            self._hold(message)

    def oldest(self) -> P | None:
        """What to send next; it stays in line until it is forgotten or replaced."""
        with self._lock:
            return next(iter(self._waiting.values()), None)

    def forget(self, message: P) -> None:
        """It was taken, or never will be."""
        with self._lock, suppress(KeyError):
            del self._waiting[message.id]
            self._bytes -= len(message.body)
        if self._spool is not None:
            self._spool.remove(message.id)

    def replace(self, message: P, parts: list[P]) -> None:
        """Send these instead. They are on disk before the whole is removed: a crash between the two makes the
        same parts again.
        """
        for part in parts:
            self.put(part)
        self.forget(message)

    def abandon(self) -> int:
        """The end: drop and count what is not on disk. Returns how many things that were."""
        with self._lock:
            lost = sum(
                p.count for p in self._waiting.values() if self._spool is None or p.id not in self._spool
            )
            self._waiting, self._bytes = OrderedDict(), 0
            self.dropped += lost
        return lost

    @property
    def count(self) -> int:
        """How many things wait in memory; for a moment twice while they are put in line."""
        with self._lock:
            return self._expected + sum(message.count for message in self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)

    def _hold(self, message: P) -> None:
        with self._lock:
            self._waiting[message.id] = message
            self._bytes += len(message.body)
            while self._bytes > self._max_bytes and len(self._waiting) > 1:
                _, oldest = self._waiting.popitem(last=False)
                self._bytes -= len(oldest.body)
                if self._spool is None or oldest.id not in self._spool:
                    self.dropped += oldest.count
