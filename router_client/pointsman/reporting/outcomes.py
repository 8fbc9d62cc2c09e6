"""Aggregate outcomes into minutes, divide them into batches, and keep these until they are acknowledged.

    decided  → counts of decisions ┐
    record   → open minute buckets ┴→ seal → `Outbox` (memory, or the spool directory) → 202 → forgotten

A batch keeps its id in every retry and on disk, so the control plane counts it once however often it
arrives. Memory is bounded even in long outages: if there is no room, the oldest batch is dropped and counted, because
a running rollout is judged by the newest evidence.
"""

from __future__ import annotations

import threading

from pointsman.reporting.batch import Batch, batches
from pointsman.reporting.buckets import Bucket, BucketKey, Outcome
from pointsman.reporting.counts import CellCounts, CountKey, DecidedCounts, DecisionTallies
from pointsman.reporting.outbox import Outbox
from pointsman.reporting.spool import Spool

__all__ = ["OutcomeBuffer"]


class OutcomeBuffer:
    """Aggregates outcomes and keeps batches until they are accepted. Thread-safe; no call waits for the network.

    max_buckets  number of open minute buckets; a task that would need another is dropped
    max_bytes    of waiting batches in memory; beyond it the oldest is removed (with a spool it stays on disk)
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
        """Start empty in a forked child; the parent sends the outcomes that it had recorded."""
        self.router = router
        self._lock = threading.Lock()
        self._open: dict[BucketKey, Bucket] = {}
        self._cells: dict[CountKey, CellCounts] = {}
        self._decided: dict[CountKey, DecidedCounts] = {}
        self.decisions = DecisionTallies()
        self._outbox: Outbox[Batch] = Outbox(self.max_bytes, self.spool)
        self.recorded = self.accepted = self.refused = self._dropped = 0

    def record(
        self, key: BucketKey, outcome: Outcome, cost_cap_nusd: int | None = None, cell: int | None = None
    ) -> bool:
        """Add one task to its minute. Return False if it was dropped for lack of room.

        cell   of its unit; None if each request is its own unit
        """
        with self._lock:
            bucket = self._open.get(key)
            if bucket is None:
                if len(self._open) >= self.max_buckets:
                    self._dropped += 1
                    return False
                bucket = self._open[key] = Bucket()
            bucket.add(outcome, cost_cap_nusd)
            if cell is not None:
                self._cells.setdefault(CountKey.of(key), CellCounts()).add(cell, outcome.success is False)
            self.recorded += 1
        return True

    def seal(self) -> None:
        """Move the open buckets to the outbox as batches. The parts of a minute sealed several times add up."""
        with self._lock:
            self.decisions.fold(self._decided)
            sealed, self._open = self._open, {}
            decided, self._decided = self._decided, {}
            cells, self._cells = self._cells, {}
            tasks = sum(bucket.tasks for bucket in sealed.values())
            self._outbox.expect(tasks)
        # Only this thread now has the old dicts, so encoding needs no lock.
        try:
            entries = {
                "buckets": [bucket.as_dict(key) for key, bucket in sealed.items()],
                "decided": [counts.as_dict(key) for key, counts in decided.items()],
                "cells": [counts.as_dict(key) for key, counts in cells.items()],
            }
            for batch in batches(self.router, entries):
                self._outbox.put(batch)
        finally:
            self._outbox.expect(-tasks)

    def adopt(self) -> None:
        """Take over batches in the spool that another process left, or for which there was no room in memory."""
        self._outbox.adopt()

    @property
    def batches_waiting(self) -> int:
        """Batches not yet acknowledged, in memory."""
        return len(self._outbox)

    @property
    def tasks_waiting(self) -> int:
        """Tasks not yet acknowledged, in memory; briefly counted twice while they are queued, but never 0."""
        with self._lock:
            still_open = sum(bucket.tasks for bucket in self._open.values())
        return still_open + self._outbox.count

    @property
    def dropped(self) -> int:
        """Tasks dropped for lack of room, or unsent at the end."""
        return self._dropped + self._outbox.dropped

    def oldest(self) -> Batch | None:
        """Return the batch to send next; it stays queued until it is accepted, refused or dropped."""
        return self._outbox.oldest()

    def accept(self, batch: Batch) -> None:
        """Remove a batch that the control plane has committed."""
        self._outbox.forget(batch)
        self.accepted += batch.count

    def refuse(self, batch: Batch, bad: set[tuple[str, int]]) -> None:
        """Replace a refused batch by one with its valid entries, and count the rest.

        bad   (list, index) of the entries listed in the response
        """
        rest = batch.without(bad) if bad else []
        self._outbox.replace(batch, rest)
        self.refused += batch.count - sum(part.count for part in rest)

    def postpone(self, batch: Batch, seconds: float) -> bool:
        """Send the others first. Return whether it is the first time for this batch."""
        return self._outbox.postpone(batch, seconds)

    def split(self, batch: Batch) -> None:
        """Split a batch that is too large for the control plane."""
        halves = batch.halves()
        self._outbox.replace(batch, halves)
        if not halves:
            self.refused += batch.count

    def is_free(self, within_s: float) -> bool:
        """Return whether no call is under way. One stays under way if a signal handler that interrupted it asks."""
        if not self._lock.acquire(timeout=within_s):
            return False
        self._lock.release()
        return True

    def abandon(self) -> int:
        """At the end, drop and count tasks neither acknowledged nor on disk. Return their number."""
        with self._lock:
            lost = sum(bucket.tasks for bucket in self._open.values())
            self._open, self._decided, self._cells = {}, {}, {}
            self._dropped += lost
        return lost + self._outbox.abandon()
