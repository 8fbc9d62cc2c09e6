"""What a gateway process hears of its routers, kept in memory until the `FleetWriter` writes it down.

A router is due to be written when something about it changed, else every `REWRITTEN_AFTER_S`: a fleet that polls
quietly costs the database one row per router and half a minute, at any poll interval.
"""

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from policies_app.fleet.acks import Ack

# Short enough that a row's `polled_at` is late by less than what `readback.SILENT_AFTER` has to spare.
REWRITTEN_AFTER_S = 25.0
KEY_USE_AFTER_S = 60.0
PARTLY_AFTER_S = 3_600.0
MOST_BUFFERED = 100_000  # routers; beyond it new names wait until the next write

RouterId = tuple[int, str]  # environment's primary key, router instance

_NEVER = ("", None, -math.inf)


class Position(NamedTuple):
    """The snapshot that a router has applied. The empty epoch: none."""

    epoch: str
    revision: int


@dataclass(slots=True)
class HeardRouter:
    """What was heard of one router since the last write; times are `time.monotonic()`.

    Tag and ack are kept apart down to the row: gateways are several processes, and one that hears only tags
    must not write over what another heard in an ack.
    """

    client: str
    at: float
    tag: Position | None = None
    ack: Position | None = None
    acked_at: float = 0.0
    refusals: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: bool = False
    clock_ahead_s: float | None = None  # by how much its reported minutes were ahead of the database's clock


class FleetBuffer:
    """The buffer of one process, filled by the event loop and emptied by the `FleetWriter`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[RouterId, HeardRouter] = {}
        self._used: set[int] = set()
        self._written: dict[RouterId, tuple[str, Position | None, float]] = {}  # client, tag, when
        self._used_at: dict[int, float] = {}
        self._partly: set[RouterId] = set()
        self._partly_at: dict[RouterId, float] = {}

    def polled(self, environment: int, instance: str, client: str, epoch: str, revision: int) -> None:
        """A router asked, and its tag says what it has applied and stored."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.tag = Position(epoch, revision)

    def acked(self, environment: int, instance: str, client: str, epoch: str, revision: int) -> None:
        """A router told that it has applied this, even if its disk has not taken it yet."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.ack, heard.acked_at = Position(epoch, revision), heard.at

    def refused(self, environment: int, instance: str, client: str, revision: int, ack: Ack) -> None:
        """A router keeps its older policy of one workload and says why."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.refusals[ack.workload or ""] = {
                    "digest": ack.digest,
                    "error": ack.error,
                    "revision": ack.revision or revision,
                }

    def reported_ahead(self, environment: int, instance: str, client: str, seconds: float) -> None:
        """A router reported minutes that lie in the future, so its outcomes are not taken yet."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.clock_ahead_s = seconds

    def reported_partly(self, environment: int, instance: str) -> None:
        """A router reported outcomes without its decisions, so what never came back is unknown."""
        with self._lock:
            self._partly.add((environment, instance))

    def left(self, environment: int, instance: str, client: str) -> None:
        """A router said that it is about to end: from then on it counts for nothing."""
        with self._lock:
            if heard := self._entry(environment, instance, client):
                heard.left = True

    def _entry(self, environment: int, instance: str, client: str) -> HeardRouter | None:
        """The router's entry, made if there is room. Without room: None, and its next request tells it again."""
        router = (environment, instance)
        heard = self._heard.get(router)
        if heard is None:
            if len(self._heard) >= MOST_BUFFERED:
                return None
            heard = self._heard[router] = HeardRouter(client, 0.0)
        heard.client, heard.at, heard.left = client or heard.client, time.monotonic(), False
        return heard

    @property
    def buffered(self) -> int:
        """Routers that were heard since the last write."""
        return len(self._heard)

    def used(self, key: int) -> None:
        """A request was made with this key (its primary key)."""
        self._used.add(key)

    # --- the writer's side ----------------------------------------------------------------------------

    def take_due(self, now: float) -> dict[RouterId, HeardRouter]:
        """Empty the buffer; return the routers that are due to be written."""
        with self._lock:
            heard, self._heard = self._heard, {}
        return {router: said for router, said in heard.items() if self._is_due(router, said, now)}

    def take_used_keys(self, now: float) -> list[int]:
        """The keys whose use is due to be written, in order."""
        used, self._used = self._used, set()
        return sorted(key for key in used if now - self._used_at.get(key, -math.inf) > KEY_USE_AFTER_S)

    def take_partly(self, now: float) -> list[RouterId]:
        """The routers that report partly and are due to be noted so: once an hour, in order."""
        with self._lock:
            partly, self._partly = self._partly, set()
        due = (router for router in partly if now - self._partly_at.get(router, -math.inf) > PARTLY_AFTER_S)
        return sorted(due)

    def note_partly(self, written: list[RouterId], now: float) -> None:
        self._partly_at.update(dict.fromkeys(written, now))
        if len(self._partly_at) > 2 * MOST_BUFFERED:
            self._partly_at.clear()

    def note_written(self, written: dict[RouterId, HeardRouter], keys: list[int], now: float) -> None:
        self._used_at.update(dict.fromkeys(keys, now))
        for router, heard in written.items():
            tag = heard.tag or self._written.get(router, _NEVER)[1]
            self._written[router] = (heard.client, tag, now)
        if len(self._written) > 2 * MOST_BUFFERED:
            self._written.clear()

    def _is_due(self, router: RouterId, heard: HeardRouter, now: float) -> bool:
        client, tag, at = self._written.get(router, _NEVER)
        if heard.client != client or (heard.tag is not None and heard.tag != tag):
            return True
        said = heard.refusals or heard.left or heard.clock_ahead_s is not None
        # An ack counts by its age, so that each is written.
        return heard.ack is not None or bool(said) or now - at > REWRITTEN_AFTER_S
