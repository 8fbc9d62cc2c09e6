"""Which router applied what, and when. Heard on every poll, kept in memory, written every two seconds.

A row is written when something in it changed, else every `REWRITTEN_AFTER_S`: a fleet that polls quietly
costs the database a row per router and half a minute, whatever the poll interval.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import DatabaseError, connection

from controlplane.access.models import Key
from controlplane.core import clock
from policies_app.fleet.acks import Ack
from policies_app.models import Assignment, Environment, Router

log = logging.getLogger(__name__)

FLUSHED_EVERY_S = 2.0
REWRITTEN_AFTER_S = 30.0
KEY_USE_AFTER_S = 60.0
WINDOW_S = 120
SEEN_WITHIN = timedelta(seconds=WINDOW_S)  # a router that polled within it belongs to the fleet
# How long an ack outweighs an older If-None-Match. A router repeats it every minute for as long as its disk
# refuses what it applied; one that was restarted from that disk must not be taken at its old word for long.
ACK_STANDS = timedelta(seconds=90)
FORGOTTEN_AFTER = timedelta(days=7)
MOST_BUFFERED = 100_000  # routers; beyond it new names wait until the next write

Place = tuple[int, str]  # environment's primary key, router instance


class At(NamedTuple):
    """Where a router says it is. The empty epoch: it has applied nothing."""

    epoch: str
    revision: int


@dataclass(slots=True)
class Seen:
    """What was heard of one router since the last write; times are Unix seconds.

    Tag and ack are kept apart down to the row: gateways are several processes, and one that hears only tags
    must not write over what another heard in an ack.
    """

    client: str
    at: float
    tag: At | None = None
    ack: At | None = None
    acked_at: float = 0.0
    refusals: dict[str, dict[str, Any]] = field(default_factory=dict)


class Fleet:
    """The buffer of one process, filled by the event loop and emptied by the `Scribe`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Place, Seen] = {}
        self._used: set[int] = set()
        self._written: dict[Place, tuple[str, At | None, float]] = {}  # client, tag, when
        self._used_at: dict[int, float] = {}

    def polled(self, environment: int, instance: str, client: str, epoch: str, revision: int) -> None:
        """A router asked, and its tag says what it has applied and stored."""
        with self._lock:
            if seen := self._see(environment, instance, client):
                seen.tag = At(epoch, revision)

    def acked(self, environment: int, instance: str, client: str, epoch: str, revision: int) -> None:
        """A router told that it has applied this, whether or not its disk has taken it."""
        with self._lock:
            if seen := self._see(environment, instance, client):
                seen.ack, seen.acked_at = At(epoch, revision), seen.at

    def refused(self, environment: int, instance: str, client: str, revision: int, ack: Ack) -> None:
        """A router keeps its older policy of one workload and says why."""
        with self._lock:
            if seen := self._see(environment, instance, client):
                seen.refusals[ack.workload or ""] = {
                    "digest": ack.digest,
                    "error": ack.error,
                    "revision": ack.revision or revision,
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                }

    def _see(self, environment: int, instance: str, client: str) -> Seen | None:
        """Its entry, made if there is room: None when there is none, and its next request tells it again."""
        place = (environment, instance)
        seen = self._seen.get(place)
        if seen is None:
            if len(self._seen) >= MOST_BUFFERED:
                return None
            seen = self._seen[place] = Seen(client, 0.0)
        seen.client, seen.at = client or seen.client, time.time()
        return seen

    @property
    def buffered(self) -> int:
        """Routers that were heard since the last write."""
        return len(self._seen)

    def used(self, key: int) -> None:
        self._used.add(key)

    def flush(self) -> None:
        """Write what was heard. What could not be written is heard again with the next poll."""
        with self._lock:
            heard, self._seen = self._seen, {}
        used, self._used = self._used, set()
        now = time.time()
        due = {place: seen for place, seen in heard.items() if self._is_due(place, seen, now)}
        stale = sorted(key for key in used if now - self._used_at.get(key, 0) > KEY_USE_AFTER_S)
        if not due and not stale:
            return
        _write(due)
        Key.objects.filter(pk__in=stale).update(last_used_at=clock.now())
        self._used_at.update(dict.fromkeys(stale, now))
        for place, seen in due.items():
            self._written[place] = (seen.client, seen.tag or self._written_tag(place), now)
        if len(self._written) > 2 * MOST_BUFFERED:
            self._written.clear()

    def _is_due(self, place: Place, seen: Seen, now: float) -> bool:
        client, tag, at = self._written.get(place, ("", None, 0.0))
        if seen.client != client or (seen.tag is not None and seen.tag != tag):
            return True
        # An ack counts by its age, so that each is written.
        return seen.ack is not None or bool(seen.refusals) or now - at > REWRITTEN_AFTER_S

    def _written_tag(self, place: Place) -> At | None:
        return self._written.get(place, ("", None, 0.0))[1]


def _write(heard: dict[Place, Seen]) -> None:
    """Upsert, each row with those columns only of which something was heard.

    In the order of (environment, instance) and one transaction for each set of columns, so that two processes
    never deadlock.
    """
    living = set(Environment.objects.values_list("pk", flat=True)) if heard else set()
    places = sorted(place for place in heard if place[0] in living)
    before = _rejections(place for place in places if heard[place].refusals)
    rows: dict[tuple[str, ...], list[Router]] = defaultdict(list)
    for place in places:
        seen = heard[place]
        columns = _columns(seen)
        if seen.refusals:
            columns["rejected"] = {**before.get(place, {}), **seen.refusals}
        row = Router(environment_id=place[0], instance=place[1], **columns)
        rows[tuple(columns)].append(row)
    for columns_heard, of_these in rows.items():
        Router.objects.bulk_create(
            of_these,
            batch_size=500,
            update_conflicts=True,
            unique_fields=["environment", "instance"],
            update_fields=columns_heard,
        )


def _columns(seen: Seen) -> dict[str, Any]:
    at = datetime.fromtimestamp(seen.at, UTC)
    columns: dict[str, Any] = {"client": seen.client, "polled_at": at}
    if seen.tag is not None:
        columns |= {"epoch": seen.tag.epoch, "revision": seen.tag.revision}
    if seen.ack is not None:
        acked_at = datetime.fromtimestamp(seen.acked_at, UTC)
        columns |= {"acked_epoch": seen.ack.epoch, "acked_revision": seen.ack.revision, "acked_at": acked_at}
    if (seen.tag and seen.tag.revision) or (seen.ack and seen.ack.revision):
        columns["applied_at"] = at
    return columns


def _rejections(places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """The refusals on record, of the few routers that have any."""
    environments = {environment for environment, _ in places}
    rows = Router.objects.filter(environment_id__in=environments).exclude(rejected={})
    return {(e, i): r for e, i, r in rows.values_list("environment_id", "instance", "rejected")}


class Scribe(threading.Thread):
    """Writes the buffer every two seconds: a rollback's readback waits for it."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(name="fleet-scribe", daemon=True)
        self._fleet = fleet
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(FLUSHED_EVERY_S):
            self._flush()
        self._flush()
        connection.close()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._ending.set()
        self.join(timeout=30)

    def _flush(self) -> None:
        try:
            self._fleet.flush()
        except DatabaseError:
            log.warning("the fleet could not be written; the next polls tell it again", exc_info=True)
            connection.close()


class Refusal(NamedTuple):
    router: str
    workload: str
    digest: str
    error: str

    def __str__(self) -> str:
        return f"{self.router}: {self.error}"


@dataclass(frozen=True, slots=True)
class FleetView:
    """`confirmed` of `of` routers that polled within the window have applied the revision or a later one."""

    confirmed: int
    of: int
    stragglers: list[str]
    rejected: list[Refusal]


def applied(router: Router, now: datetime) -> At:
    """What a router has applied: what its tag says, or its ack while that is young and says more.

    Of two epochs neither is the later by itself; there the ack is believed, which is sent with each change.
    """
    tag, ack = At(router.epoch, router.revision), At(router.acked_epoch, router.acked_revision)
    young = router.acked_at is not None and now - router.acked_at < ACK_STANDS
    return ack if young and (ack.epoch != tag.epoch or ack.revision > tag.revision) else tag


@dataclass(frozen=True, slots=True)
class Present:
    """An environment's routers that polled within the window, read once for any number of questions."""

    applied: list[tuple[int, str]]  # (revision, instance), sorted; revision -1: of another epoch
    rejected: list[Refusal]

    def view(self, revision: int) -> FleetView:
        """The fleet against a revision of the environment's present epoch."""
        behind = bisect_left(self.applied, (revision,))
        stragglers = sorted(instance for _, instance in self.applied[:behind])
        return FleetView(len(self.applied) - behind, len(self.applied), stragglers, self.rejected)


def present(environment: Environment, window_s: int = WINDOW_S) -> Present:
    now = clock.now()
    since = now - timedelta(seconds=window_s)
    routers = list(environment.routers.filter(polled_at__gte=since).order_by("instance"))
    at = [(applied(router, now), router.instance) for router in routers]
    refusing = [router for router in routers if router.rejected]
    served = _served_digests(environment) if refusing else set()
    return Present(
        sorted((was.revision if was.epoch == environment.epoch else -1, name) for was, name in at),
        [
            Refusal(router.instance, workload, refusal["digest"], refusal["error"])
            for router in refusing
            for workload, refusal in sorted(router.rejected.items())
            # A refusal stands for as long as the refused document is served.
            if (workload, refusal["digest"]) in served
        ],
    )


def view(environment: Environment, revision: int, window_s: int = WINDOW_S) -> FleetView:
    """The fleet of an environment against a revision of its present epoch."""
    return present(environment, window_s).view(revision)


def _served_digests(environment: Environment) -> set[tuple[str, str]]:
    rows = Assignment.objects.filter(environment=environment).values_list(
        "workload__name", "baseline__digest", "candidate__digest"
    )
    return {(name, digest) for name, *digests in rows for digest in digests if digest}


def prune() -> int:
    """Forget routers that have not been heard of for a week."""
    deleted, _ = Router.objects.filter(polled_at__lt=clock.now() - FORGOTTEN_AFTER).delete()
    return deleted
