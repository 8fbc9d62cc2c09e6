"""Outcomes on their way to the control plane: folded into minutes, cut into batches, kept until acknowledged.

    record → open minute buckets → seal → waiting batches (memory, or the spool directory) → 202 → forgotten

A batch keeps its id through every retry and on disk, so the control plane counts it once however often it
arrives. Memory is bounded whatever the outage: what finds no room is dropped, oldest batch first, because
the newest evidence is what a running rollout is judged by; and it is counted.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import suppress

from pointsman.batch import Batch, batches
from pointsman.buckets import Bucket, BucketKey, Outcome
from pointsman.spool import Spool

__all__ = ["OutcomeBuffer"]

log = logging.getLogger("pointsman")


class OutcomeBuffer:
    """Folds outcomes and holds batches until they are accepted. Thread-safe; no call waits for the network.

    max_buckets  open minute buckets; a task that would need another is dropped
    max_bytes    waiting batches in memory; beyond, the oldest goes (with a spool it stays on disk)
    """

    def __init__(
        self,
        router: str,
        *,
        max_buckets: int = 20_000,
        max_bytes: int = 32 << 20,
        spool: Spool | None = None,
    ) -> None:
        self.router = router
        self.max_buckets = max_buckets
        self.max_bytes = max_bytes
        self.spool = spool
        self.restart(router)

    def restart(self, router: str) -> None:
        """Begin anew, empty: a forked child does, because its parent sends what it had recorded."""
        self.router = router
        self._lock = threading.Lock()
        self._open: dict[BucketKey, Bucket] = {}
        self._waiting: OrderedDict[str, Batch] = OrderedDict()
        self._waiting_bytes = 0
        self.recorded = self.accepted = self.dropped = self.refused = 0

    def record(self, key: BucketKey, outcome: Outcome, cost_cap_nusd: int | None = None) -> bool:
        """Fold one task into its minute; False when it was dropped for lack of room."""
        with self._lock:
            bucket = self._open.get(key)
            if bucket is None:
                if len(self._open) >= self.max_buckets:
                    self.dropped += 1
                    return False
                bucket = self._open[key] = Bucket()
            bucket.add(outcome, cost_cap_nusd)
            self.recorded += 1
        return True

    def seal(self) -> None:
        """Put the open buckets in line as batches. A minute sealed in several parts adds up."""
        with self._lock:
            sealed, self._open = self._open, {}
        # Only the thread that swapped the dict out holds it now; encoding needs no lock.
        for batch in batches(self.router, [bucket.as_dict(key) for key, bucket in sealed.items()]):
            self._enqueue(batch)

    def adopt(self) -> None:
        """Take over batches in the spool that another process left, or that memory had no room for."""
        if self.spool is None:
            return
        for batch in self.spool.orphans(set(self._waiting)):
            if self._waiting_bytes + len(batch.body) > self.max_bytes:
                return
            self._hold(batch)

    @property
    def open_buckets(self) -> int:
        """Minute buckets not yet sealed."""
        return len(self._open)

    @property
    def batches_waiting(self) -> int:
        """Batches not yet acknowledged, in memory."""
        return len(self._waiting)

    @property
    def tasks_waiting(self) -> int:
        """Tasks not yet acknowledged, in memory."""
        with self._lock:
            return sum(b.tasks for b in self._open.values()) + sum(b.tasks for b in self._waiting.values())

    def oldest(self) -> Batch | None:
        """The batch to send next; it stays in line until it is accepted, refused or dropped."""
        with self._lock:
            return next(iter(self._waiting.values()), None)

    def accept(self, batch: Batch) -> None:
        """The control plane has committed it."""
        self._forget(batch)
        self.accepted += batch.tasks

    def refuse(self, batch: Batch, bad: set[int]) -> None:
        """It will never be taken. What is good in it goes on as a new batch, the rest is counted."""
        rest = batch.without(bad) if bad else []
        self._replace(batch, rest)
        self.refused += batch.tasks - sum(part.tasks for part in rest)

    def split(self, batch: Batch) -> None:
        """It is too large for the control plane: send it in two."""
        halves = batch.halves()
        self._replace(batch, halves)
        if not halves:
            self.refused += batch.tasks

    def abandon(self) -> int:
        """The end: drop and count what is neither acknowledged nor on disk. Returns how many tasks."""
        with self._lock:
            lost = [b.tasks for b in self._waiting.values() if self.spool is None or b.id not in self.spool]
            lost += [b.tasks for b in self._open.values()]
            self._open, self._waiting, self._waiting_bytes = {}, OrderedDict(), 0
            self.dropped += sum(lost)
        return sum(lost)

    def _enqueue(self, batch: Batch) -> None:
        if self.spool is not None:
            try:
                gone = sum(old.tasks for old in self.spool.put(batch))
                with self._lock:
                    self.dropped += gone
            except OSError as error:
                log.warning("outcome batch %s stays in memory only: %s", batch.id, error)
        self._hold(batch)

    def _hold(self, batch: Batch) -> None:
        with self._lock:
            self._waiting[batch.id] = batch
            self._waiting_bytes += len(batch.body)
            while self._waiting_bytes > self.max_bytes and len(self._waiting) > 1:
                _, oldest = self._waiting.popitem(last=False)
                self._waiting_bytes -= len(oldest.body)
                if self.spool is None or oldest.id not in self.spool:
                    self.dropped += oldest.tasks

    def _replace(self, batch: Batch, parts: list[Batch]) -> None:
        # The parts are on disk before the whole is removed; a crash between makes the same parts again.
        for part in parts:
            self._enqueue(part)
        self._forget(batch)

    def _forget(self, batch: Batch) -> None:
        with self._lock, suppress(KeyError):
            del self._waiting[batch.id]
            self._waiting_bytes -= len(batch.body)
        if self.spool is not None:
            self.spool.remove(batch.id)
