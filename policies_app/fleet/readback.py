"""Determine which routers have applied a change, and which are still awaited.

A router process is *counted* from its first poll until it sends `leaving`. One that never applied anything is counted
only for `NEWCOMER`, because it has nothing to take back. One that was already silent when the change was made is not
counted but listed (`lost`), since it may still run on its old state.

A counted router that has not applied the change is a *straggler*. It is awaited until it has been silent for
`SILENT_AFTER`; then it is listed as silent and no longer awaited. Silence only counts while the control plane could
hear (`listening`): after an outage of the control plane, every router has its full time to return.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from controlplane.core import clock
from policies_app.fleet.buffer import Position
from policies_app.fleet.listening import SKEW, Hearing, read_hearing
from policies_app.models import Assignment, Environment, Router

# The sum of a router's longest backoff (60 s), its longest long poll (30 s), and the delay of its row (27 s).
SILENT_AFTER = timedelta(minutes=2)
NEWCOMER = timedelta(seconds=10)
# Gateways write every two seconds, so this long after a change, every router that had polled is on record.
ON_RECORD_AFTER = timedelta(seconds=5)
# Two gateways that hear a router at the same moment write times that differ by less than this.
TOGETHER = timedelta(milliseconds=100)
# How long an ack overrides an older If-None-Match. A router repeats it every minute while its disk rejects what it
# applied. A router restarted from that disk must not be credited with its old ack for long.
ACK_STANDS = timedelta(seconds=90)


class Refusal(NamedTuple):
    """A router's refusal of a document. The router keeps the previous policy of that workload."""

    router: str
    workload: str
    digest: str
    error: str

    def __str__(self) -> str:
        return f"{self.router}: {self.error}"


@dataclass(frozen=True, slots=True)
class FleetRouter:
    """A counted router. `revision` is the one it has applied in the current epoch; -1: none."""

    instance: str
    revision: int
    heard_at: datetime


@dataclass(frozen=True, slots=True)
class Readback:
    """The state of a change: `confirmed` of `of` counted routers have applied the revision or a later one."""

    revision: int
    confirmed: int
    of: int
    stragglers: list[str]  # counted, but not confirmed
    silent: list[str]  # stragglers that are no longer awaited
    lost: list[str]  # not counted: heard since the previous change, silent when this one was made
    rejected: list[Refusal]

    @property
    def awaited(self) -> int:
        return len(self.stragglers) - len(self.silent)

    def as_dict(self) -> dict[str, object]:
        counts = {"confirmed": self.confirmed, "of": self.of, "stragglers": self.stragglers}
        return counts | {"silent": self.silent, "lost": self.lost}


def applied(router: Router, now: datetime) -> Position:
    """Return what a router has applied: its tag, or its ack if that is recent and newer.

    Two epochs have no order. If they differ, the ack counts, because one is sent with each change.
    """
    tag, ack = Position(router.epoch, router.revision), Position(router.acked_epoch, router.acked_revision)
    young = router.acked_at is not None and -SKEW < now - router.acked_at < ACK_STANDS
    return ack if young and (ack.epoch != tag.epoch or ack.revision > tag.revision) else tag


@dataclass(frozen=True, slots=True)
class Fleet:
    """An environment's routers, read once for any number of queries."""

    now: datetime
    hearing: Hearing
    routers: list[FleetRouter]  # sorted by revision
    rejected: list[Refusal]
    _revisions: list[int]  # of the routers that are not silent, sorted

    def applied_by(self, revision: int) -> tuple[int, int]:
        """Return how many of the routers that are not silent have applied a revision, and how many there are."""
        return len(self._revisions) - bisect_left(self._revisions, revision), len(self._revisions)

    def readback(
        self, revision: int, *, changed_at: datetime | None = None, since: datetime | None = None
    ) -> Readback:
        """Return the readback of a revision of the current epoch, made at `changed_at` (None: now).

        `since` is when the change that this one reverts began. A router heard since then, but silent when this one was
        made, may still follow that change: it is `lost`.
        """
        silent_then = self._silent_before(changed_at or self.now)
        silent_now = self._silent_before(self.now)
        counted = [router for router in self.routers if router.heard_at >= silent_then]
        behind = [router for router in counted if router.revision < revision]
        lost = [
            router
            for router in self.routers
            if router.heard_at < silent_then and router.revision < revision
            and since is not None and router.heard_at >= since
        ]  # fmt: skip
        return Readback(
            revision,
            len(counted) - len(behind),
            len(counted),
            _names(behind),
            _names(router for router in behind if router.heard_at < silent_now),
            _names(lost),
            self.rejected,
        )

    def has_followed(self, readback: Readback, changed_at: datetime) -> bool:
        """Return whether every counted router has applied the change or gone silent, and all are known."""
        if self.now - changed_at < ON_RECORD_AFTER:
            return False
        if readback.of:
            return not readback.awaited
        # Nobody is counted. That is certain only if the control plane has listened for as long as a router may be
        # silent.
        since = self.hearing.since(self.now)
        return since is not None and self.now - since >= SILENT_AFTER

    def is_silent(self, router: FleetRouter) -> bool:
        return router.heard_at < self._silent_before(self.now)

    def _silent_before(self, at: datetime) -> datetime:
        return silent_before(self.hearing, at)


def silent_before(hearing: Hearing, at: datetime) -> datetime:
    """Return the time before which a router's last poll means that it was silent by `at`."""
    return hearing.heard_out(at, SILENT_AFTER) or datetime.min.replace(tzinfo=UTC)


def _names(routers: Iterable[FleetRouter]) -> list[str]:
    return sorted(router.instance for router in routers)


def read_fleet(
    environment: Environment,
    *,
    now: datetime | None = None,
    back_to: datetime | None = None,
    hearing: Hearing | None = None,
    known: Iterable[Router] | None = None,
) -> Fleet:
    """Read the fleet as of `now`. `back_to` is the earliest `changed_at` or `since` to be queried.

    `known` holds all of the environment's routers, if the caller has already read them.
    """
    now = now or clock.now()
    hearing = read_hearing() if hearing is None else hearing
    oldest = oldest_poll(hearing, now, back_to)
    heard = environment.routers.filter(polled_at__gte=oldest) if known is None else known
    rows = [router for router in heard if router.polled_at >= oldest and _counts(router, now)]
    routers = [_fleet_router(router, environment.epoch, hearing, now) for router in rows]
    routers.sort(key=lambda router: router.revision)
    silent = silent_before(hearing, now)
    refusing = [router for router in rows if router.rejected]
    served = _served_digests(environment) if refusing else set()
    rejected = [
        Refusal(router.instance, workload, refusal["digest"], refusal["error"])
        for router in sorted(refusing, key=lambda router: router.instance)
        for workload, refusal in sorted(router.rejected.items())
        # A refusal stands only while the refused document is served.
        if router.polled_at >= silent and (workload, refusal["digest"]) in served
    ]
    revisions = [router.revision for router in routers if router.heard_at >= silent]
    return Fleet(now, hearing, routers, rejected, revisions)


def oldest_poll(hearing: Hearing, now: datetime, back_to: datetime | None) -> datetime:
    """Return since when a router must have polled to matter to `read_fleet` with these."""
    marks = [silent_before(hearing, now)]
    if back_to is not None:
        marks += [silent_before(hearing, back_to), back_to]
    return min(marks)


def read_back(environment: Environment, revision: int, *, changed_at: datetime | None = None) -> Readback:
    """Return the readback of an environment's revision in its current epoch."""
    return read_fleet(environment, back_to=changed_at).readback(revision, changed_at=changed_at)


def _counts(router: Router, now: datetime) -> bool:
    if has_left(router, now):
        return False
    if router.epoch or router.acked_epoch:
        return True
    # A first poll in the future was written by a clock corrected since, and may be long past.
    return -SKEW <= now - (router.first_polled_at or router.polled_at) < NEWCOMER


def has_left(router: Router, now: datetime) -> bool:
    """Return whether the router sent `leaving` and has not polled since."""
    if router.left_at is None:
        return False
    if router.left_at > now + SKEW >= router.polled_at:
        return False  # it left under a clock that was ahead, and polled after the clock was corrected
    return router.left_at + TOGETHER >= router.polled_at


def _fleet_router(router: Router, epoch: str, hearing: Hearing, now: datetime) -> FleetRouter:
    at = applied(router, now)
    heard_at = router.polled_at
    if heard_at > now + SKEW:  # written by a clock corrected since, when a new period began
        heard_at = hearing.since(now) or now
    return FleetRouter(router.instance, at.revision if at.epoch == epoch else -1, heard_at)


def _served_digests(environment: Environment) -> set[tuple[str, str]]:
    rows = Assignment.objects.filter(environment=environment).values_list(
        "workload__name", "baseline__digest", "candidate__digest"
    )
    return {(name, digest) for name, *digests in rows for digest in digests if digest}
