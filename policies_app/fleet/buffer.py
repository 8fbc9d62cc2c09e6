"""What a gateway process has heard from its routers, buffered in memory until the `FleetWriter` stores it.

A router is due to be written when something about it changed, and otherwise every `REWRITTEN_AFTER_S`: a quiet fleet
costs the database one row per router in that time, at any poll interval.
"""

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from policies_app.fleet.acks import Ack

# Short enough that `polled_at` is late by less than the slack in `readback.SILENT_AFTER`.
REWRITTEN_AFTER_S = 25.0
KEY_USE_AFTER_S = 60.0
PARTLY_AFTER_S = 3_600.0
MOST_BUFFERED = 100_000  # routers; further ones wait until the next write
MOST_REFUSALS = 1_000  # workloads of one router between two writes

RouterId = tuple[int, str]  # environment's primary key, router instance

_NEVER = ("", None, -math.inf)


class Position(NamedTuple):
    """The snapshot that a router has applied. An empty epoch means none."""

    epoch: str
    revision: int


@dataclass(slots=True)
class HeardRouter:
    """What was heard from one router since the last write. Times are `time.monotonic()`.

    Tag and ack are stored separately, down to the row: there are several gateway processes, and one that hears only
    tags must not overwrite what another heard in an ack.
    """

    client: str
    at: float
    tag: Position | None = None
    ack: Position | None = None
    acked_at: float = 0.0
    refusals: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: bool = False
    clock_ahead_s: float | None = None  # how far its reported minutes were ahead of the database's clock
    # Nothing was heard that shows it to be alive, or not since a write failed: another process may know more.
    late: bool = False


class FleetBuffer:
    """The buffer of one process: the event loop fills it, the `FleetWriter` empties it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[RouterId, HeardRouter] = {}
        self._used: set[int] = set()
        self._written: dict[RouterId, tuple[str, Position | None, float]] = {}  # client, tag, when
        self._used_at: dict[int, float] = {}
        self._partly: set[RouterId] = set()
        self._partly_at: dict[RouterId, float] = {}

    def polled(self, environment: int, instance: str, client: str, epoch: str, revision: int) -> None:
        """Record a poll. The tag names the snapshot that the router has applied and stored."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.tag = Position(epoch, revision)

    def acked(self, environment: int, instance: str, client: str, epoch: str, revision: int) -> None:
        """Record an ack: the router has applied this snapshot, though perhaps not stored it yet."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.ack, heard.acked_at = Position(epoch, revision), heard.at

    def refused(self, environment: int, instance: str, client: str, revision: int, ack: Ack) -> None:
        """Record that a router refused a workload's new policy, and why. It keeps the older one."""
        with self._lock:
            heard = self._entry(environment, instance, client)
            if heard and len(heard.refusals) < MOST_REFUSALS:
                heard.refusals[ack.workload or ""] = {
                    "digest": ack.digest,
                    "error": ack.error,
                    "revision": ack.revision or revision,
                }

    def reported_ahead(self, environment: int, instance: str, client: str, seconds: float) -> None:
        """Record that a router reported minutes in the future, so its outcomes are not accepted yet.

        That is no sign of life: the report may come from another process, which found it in a spool.
        """
        with self._lock:
            before = self._heard.get((environment, instance))
            known = (before.at, before.left, before.late) if before else (time.monotonic(), False, True)
            if heard := self._entry(environment, instance, client):
                heard.at, heard.left, heard.late = known
                heard.clock_ahead_s = seconds

    def reported_partly(self, environment: int, instance: str) -> None:
        """Record that a router reported outcomes without decisions, so its unfinished tasks are unknown."""
        with self._lock:
            self._partly.add((environment, instance))

    def left(self, environment: int, instance: str, client: str) -> None:
        """Record that a router is about to shut down. From then on it is not counted."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.left = True

    def _entry(self, environment: int, instance: str, client: str) -> HeardRouter | None:
        """Return the router's entry, created if needed; None if the buffer is full (its next request tries again)."""
        router = (environment, instance)
        heard = self._heard.get(router)
        if heard is None:
            if len(self._heard) >= MOST_BUFFERED:
                return None
            heard = self._heard[router] = HeardRouter(client, 0.0)
        heard.client, heard.at = client or heard.client, time.monotonic()
        heard.left = heard.late = False
        return heard

    @property
    def buffered(self) -> int:
        """The number of routers heard from since the last write."""
        return len(self._heard)

    def used(self, key: int) -> None:
        """Record that a key (given by its primary key) was used."""
        self._used.add(key)

    # --- used by the writer ---------------------------------------------------------------------------

    def take_due(self, now: float) -> dict[RouterId, HeardRouter]:
        """Empty the buffer and return the routers that are due to be written."""
        with self._lock:
            heard, self._heard = self._heard, {}
        return {router: each for router, each in heard.items() if self._is_due(router, each, now)}

    def put_back(self, unwritten: dict[RouterId, HeardRouter]) -> None:
        """Keep what a router says only once, although it could not be written: a refusal, and that it left."""
        with self._lock:
            for router, older in unwritten.items():
                newer = self._heard.get(router)
                if newer is not None:
                    newer.refusals = older.refusals | newer.refusals
                elif (older.refusals or older.left) and len(self._heard) < MOST_BUFFERED:
                    once = HeardRouter(older.client, older.at, refusals=older.refusals, left=older.left)
                    once.late = True
                    self._heard[router] = once

    def take_used_keys(self, now: float) -> list[int]:
        """Return the keys whose use is due to be written, in order."""
        used, self._used = self._used, set()
        return sorted(key for key in used if now - self._used_at.get(key, -math.inf) > KEY_USE_AFTER_S)

    def take_partly(self, now: float) -> list[RouterId]:
        """Return the routers with partial reports that are due to be written (once an hour), in order."""
        with self._lock:
            partly, self._partly = self._partly, set()
        due = (router for router in partly if now - self._partly_at.get(router, -math.inf) > PARTLY_AFTER_S)
        return sorted(due)

    def note_partly(self, written: list[RouterId], now: float) -> None:
        self._partly_at.update(dict.fromkeys(written, now))
        if len(self._partly_at) > 2 * MOST_BUFFERED:
            self._partly_at.clear()

    def note_used_keys(self, written: list[int], now: float) -> None:
        self._used_at.update(dict.fromkeys(written, now))

    def note_written(self, written: dict[RouterId, HeardRouter], now: float) -> None:
        for router, heard in written.items():
            if heard.late:
                continue
            tag = heard.tag or self._written.get(router, _NEVER)[1]
            self._written[router] = (heard.client, tag, now)
        if len(self._written) > 2 * MOST_BUFFERED:
            self._written.clear()

    def _is_due(self, router: RouterId, heard: HeardRouter, now: float) -> bool:
        client, tag, at = self._written.get(router, _NEVER)
        if heard.client != client or (heard.tag is not None and heard.tag != tag):
            return True
        urgent = heard.refusals or heard.left or heard.clock_ahead_s is not None
        # Each ack is written, because its age matters.
        return heard.ack is not None or bool(urgent) or now - at > REWRITTEN_AFTER_S
