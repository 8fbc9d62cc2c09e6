"""Which router applied what, and when. Heard on every poll, kept in memory, written every two seconds.

A row is written when something in it changed, else every `REWRITTEN_AFTER_S`: a fleet that polls quietly
costs the database a row per router and half a minute, whatever the poll interval.
"""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import DatabaseError, connection, transaction

from controlplane import clock
from controlplane.access.models import Key
from policies_app.acks import Ack
from policies_app.models import Assignment, Environment, Router

log = logging.getLogger(__name__)

FLUSHED_EVERY_S = 2.0
REWRITTEN_AFTER_S = 30.0
KEY_USE_AFTER_S = 60.0
WINDOW_S = 120
SEEN_WITHIN = timedelta(seconds=WINDOW_S)  # a router that polled within it belongs to the fleet
FORGOTTEN_AFTER = timedelta(days=7)
MOST_BUFFERED = 100_000  # routers; beyond it new names wait until the next write

Place = tuple[int, str]  # environment's primary key, router instance


@dataclass(slots=True)
class Seen:
    """What was heard of one router since the last write."""

    client: str
    epoch: str
    revision: int
    at: float  # Unix seconds
    refusals: dict[str, dict[str, Any]] = field(default_factory=dict)


class Fleet:
    """The buffer of one process, filled by the event loop and emptied by the `Scribe`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Place, Seen] = {}
        self._used: set[int] = set()
        self._written: dict[Place, tuple[str, str, int, float]] = {}
        self._used_at: dict[int, float] = {}

    def polled(
        self, environment: int, instance: str, client: str, epoch: str, revision: int, *, said: bool = False
    ) -> None:
        """A router asked, and its tag says what it has applied; with `said` it told so in an ack."""
        place = (environment, instance)
        with self._lock:
            seen = self._seen.get(place)
            if seen is None:
                if len(self._seen) < MOST_BUFFERED:
                    self._seen[place] = Seen(client, epoch, revision, time.time())
                return
            if not said or (epoch, revision) > (seen.epoch, seen.revision):
                seen.epoch, seen.revision = epoch, revision
            seen.client, seen.at = client or seen.client, time.time()

    def refused(self, environment: int, instance: str, client: str, revision: int, ack: Ack) -> None:
        """A router keeps its older policy of one workload and says why."""
        with self._lock:
            seen = self._seen.setdefault((environment, instance), Seen(client, "", 0, time.time()))
            seen.refusals[ack.workload or ""] = {
                "digest": ack.digest,
                "error": ack.error,
                "revision": ack.revision or revision,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }

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
        with transaction.atomic():
            _write(due)
            Key.objects.filter(pk__in=stale).update(last_used_at=clock.now())
        self._used_at.update(dict.fromkeys(stale, now))
        for place, seen in due.items():
            self._written[place] = (seen.client, seen.epoch, seen.revision, now)
        if len(self._written) > 2 * MOST_BUFFERED:
            self._written.clear()

    def _is_due(self, place: Place, seen: Seen, now: float) -> bool:
        client, epoch, revision, at = self._written.get(place, ("", "", -1, 0.0))
        changed = (client, epoch, revision) != (seen.client, seen.epoch, seen.revision)
        return changed or bool(seen.refusals) or now - at > REWRITTEN_AFTER_S


def _write(heard: dict[Place, Seen]) -> None:
    """Upsert in the order of (environment, instance), so that two processes never deadlock."""
    living = set(Environment.objects.values_list("pk", flat=True)) if heard else set()
    places = sorted(place for place in heard if place[0] in living)
    before = _rejections(places)
    rows = []
    for environment, instance in places:
        seen = heard[environment, instance]
        at = datetime.fromtimestamp(seen.at, UTC)
        rejected = {**before.get((environment, instance), {}), **seen.refusals}
        rows.append(
            Router(
                environment_id=environment,
                instance=instance,
                client=seen.client,
                epoch=seen.epoch,
                revision=seen.revision,
                polled_at=at,
                applied_at=at if seen.revision else None,
                rejected=rejected,
            )
        )
    fields = ["client", "epoch", "revision", "polled_at", "applied_at", "rejected"]
    Router.objects.bulk_create(
        rows,
        batch_size=500,
        update_conflicts=True,
        unique_fields=["environment", "instance"],
        update_fields=fields,
    )


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


def view(environment: Environment, revision: int, window_s: int = WINDOW_S) -> FleetView:
    """The fleet of an environment against a revision of its present epoch."""
    since = clock.now() - timedelta(seconds=window_s)
    served = _served_digests(environment)
    confirmed, stragglers, rejected = 0, [], []
    for router in environment.routers.filter(polled_at__gte=since).order_by("instance"):
        if router.epoch == environment.epoch and router.revision >= revision:
            confirmed += 1
        else:
            stragglers.append(router.instance)
        for workload, refusal in sorted(router.rejected.items()):
            # A refusal stands for as long as the refused document is served.
            if (workload, refusal["digest"]) in served:
                rejected.append(Refusal(router.instance, workload, refusal["digest"], refusal["error"]))
    return FleetView(confirmed, confirmed + len(stragglers), stragglers, rejected)


def _served_digests(environment: Environment) -> set[tuple[str, str]]:
    rows = Assignment.objects.filter(environment=environment).values_list(
        "workload__name", "baseline__digest", "candidate__digest"
    )
    return {(name, digest) for name, *digests in rows for digest in digests if digest}


def prune() -> int:
    """Forget routers that have not been heard of for a week."""
    deleted, _ = Router.objects.filter(polled_at__lt=clock.now() - FORGOTTEN_AFTER).delete()
    return deleted
