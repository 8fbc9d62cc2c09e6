"""Outcomes on their way to the control plane: folded into minutes, cut into batches, kept until acknowledged.

    decided  → counts of decisions ┐
    record   → open minute buckets ┴→ seal → `Outbox` (memory, or the spool directory) → 202 → forgotten

A batch keeps its id through every retry and on disk, so the control plane counts it once however often it
arrives. Memory is bounded whatever the outage: what finds no room is dropped, oldest batch first, because
the newest evidence is what a running rollout is judged by; and it is counted.
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
        self._cells: dict[CountKey, CellCounts] = {}
        self._decided: dict[CountKey, DecidedCounts] = {}
        self.decisions = DecisionTallies()
        self._outbox: Outbox[Batch] = Outbox(self.max_bytes, self.spool)
        self.recorded = self.accepted = self.refused = self._dropped = 0

    def record(
        self, key: BucketKey, outcome: Outcome, cost_cap_nusd: int | None = None, cell: int | None = None
    ) -> bool:
        """Fold one task into its minute; False when it was dropped for lack of room.

        cell   of its unit; None where each request is its own unit
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
        """Put the open buckets in line as batches. A minute sealed in several parts adds up."""
        with self._lock:
            self.decisions.fold(self._decided)
            sealed, self._open = self._open, {}
            decided, self._decided = self._decided, {}
            cells, self._cells = self._cells, {}
            tasks = sum(bucket.tasks for bucket in sealed.values())
            self._outbox.expect(tasks)
        # Only the thread that swapped the dicts out holds them now; encoding needs no lock.
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
        """Take over batches in the spool that another process left, or that memory had no room for."""
        self._outbox.adopt()

    @property
    def batches_waiting(self) -> int:
        """Batches not yet acknowledged, in memory."""
        return len(self._outbox)

    @property
    def tasks_waiting(self) -> int:
        """Tasks not yet acknowledged, in memory; for a moment twice while they are put in line, but never 0."""
        with self._lock:
            still_open = sum(bucket.tasks for bucket in self._open.values())
        return still_open + self._outbox.count

    @property
    def dropped(self) -> int:
        """Tasks that found no room, or were left at the end."""
        return self._dropped + self._outbox.dropped

    def oldest(self) -> Batch | None:
        """The batch to send next; it stays in line until it is accepted, refused or dropped."""
        return self._outbox.oldest()

    def accept(self, batch: Batch) -> None:
        """The control plane has committed it."""
        self._outbox.forget(batch)
        self.accepted += batch.count

    def refuse(self, batch: Batch, bad: set[tuple[str, int]]) -> None:
        """It will never be taken. What is good in it goes on as a new batch, the rest is counted.

        bad   (list, index) of the entries that were named
        """
        rest = batch.without(bad) if bad else []
        self._outbox.replace(batch, rest)
        self.refused += batch.count - sum(part.count for part in rest)

    def split(self, batch: Batch) -> None:
        """It is too large for the control plane: send it in two."""
        halves = batch.halves()
        self._outbox.replace(batch, halves)
        if not halves:
            self.refused += batch.count

    def abandon(self) -> int:
        """The end: drop and count what is neither acknowledged nor on disk. Returns how many tasks."""
        with self._lock:
            lost = sum(bucket.tasks for bucket in self._open.values())
            self._open, self._decided, self._cells = {}, {}, {}
            self._dropped += lost
        return lost + self._outbox.abandon()
