"""Queue of feedback, in the order in which it was given.

    put → items not yet sealed → seal → `Outbox` (memory, or the spool directory) → 202 → forgotten

Sending an item twice is harmless: the control plane keeps one per decision and kind.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pointsman.logs import log
from pointsman.reporting.batch import MAX_BYTES, FeedbackBatch, feedback_batch
from pointsman.reporting.outbox import Outbox
from pointsman.reporting.spool import FeedbackSpool

__all__ = ["FeedbackQueue"]

_MOST_AT_ONCE = 500


class FeedbackQueue:
    """Keeps feedback until it is acknowledged. Thread-safe; no call waits for the network.

    limit      number of items not yet sealed; beyond it the oldest are dropped
    max_bytes  of sealed batches in memory; beyond it the oldest are removed (with a spool they stay on disk)
    """

    def __init__(
        self, *, limit: int = 10_000, max_bytes: int = 4 << 20, spool: FeedbackSpool | None = None
    ) -> None:
        self._limit, self._max_bytes, self._spool = limit, max_bytes, spool
        self.restart()

    def restart(self) -> None:
        """Start empty in a forked child; the parent sends its own feedback."""
        self._lock = threading.Lock()
        self._items: deque[bytes] = deque()
        self._outbox: Outbox[FeedbackBatch] = Outbox(self._max_bytes, self._spool)
        self._dropped = 0

    def put(self, item: Mapping[str, Any]) -> None:
        """Add an item. Raises TypeError or ValueError if it cannot be encoded as JSON."""
        encoded = json.dumps(item, separators=(",", ":"), allow_nan=False).encode()
        with self._lock:
            self._items.append(encoded)
            if len(self._items) > self._limit:
                self._items.popleft()
                self._dropped += 1

    def seal(self) -> None:
        """Move the items to the outbox."""
        with self._lock:
            sealed, self._items = self._items, deque()
            self._outbox.expect(len(sealed))
        try:
            for part in _parts(sealed):
                self._outbox.put(feedback_batch(part, str(uuid.uuid4())))
        finally:
            self._outbox.expect(-len(sealed))

    def adopt(self) -> None:
        """Take over batches in the spool that another process left, or for which there was no room in memory."""
        self._outbox.adopt()

    def oldest(self, now: float | None = None) -> FeedbackBatch | None:
        """Return the batch to send next; it stays in the outbox until it is accepted or refused.

        With `now`, only one that was due at that (monotonic) time.
        """
        return self._outbox.oldest(now)

    def accept(self, batch: FeedbackBatch) -> None:
        """Remove an accepted batch."""
        self._outbox.forget(batch)

    def refuse(self, batch: FeedbackBatch) -> int:
        """Split a refused batch, to find the item that was refused. Return the number of items dropped."""
        halves = batch.halves()
        self._outbox.replace(batch, halves)
        dropped = 0 if halves else batch.count
        self._dropped += dropped
        return dropped

    def set_aside(self, batch: FeedbackBatch, numbers: set[int], seconds: float, up_to: float) -> bool:
        """Let the other items of a batch pass those with these indexes. Return whether it has any of them.

        Each further time is twice as long as the last one, up to `up_to` seconds.
        """
        named, others = batch.divided(numbers)
        if named is None:
            return False
        if others is not None:
            self._outbox.replace(batch, [named, others])
        if self._outbox.postpone(named, seconds, up_to):
            log.warning(
                "feedback on %d tasks waits: they were decided on a machine whose clock was ahead",
                named.count,
            )
        return True

    def is_free(self, within_s: float) -> bool:
        """Return whether no call is under way. One stays under way if a signal handler that interrupted it asks."""
        if not self._lock.acquire(timeout=within_s):
            return False
        self._lock.release()
        return True

    def abandon(self) -> int:
        """At the end, drop and count items neither acknowledged nor on disk. Return their number."""
        with self._lock:
            lost, self._items = len(self._items), deque()
            self._dropped += lost
        return lost + self._outbox.abandon()

    @property
    def dropped(self) -> int:
        """Number of items dropped for lack of room, refused, or unsent at the end."""
        return self._dropped + self._outbox.dropped

    def __len__(self) -> int:
        with self._lock:
            still_open = len(self._items)
        return still_open + self._outbox.count


def _parts(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Divide items within the protocol's limits."""
    part: list[bytes] = []
    size = 0
    for item in items:
        if part and (len(part) == _MOST_AT_ONCE or size + len(item) > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item) + 1
    if part:
        yield part
