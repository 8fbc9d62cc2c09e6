"""Which routers have applied a revision: the readback of a change."""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from controlplane.core import clock
from policies_app.fleet.buffer import Position
from policies_app.models import Assignment, Environment, Router

WINDOW_S = 120
SEEN_WITHIN = timedelta(seconds=WINDOW_S)  # a router that polled within it belongs to the fleet
# How long an ack outweighs an older If-None-Match. A router repeats it every minute for as long as its disk
# refuses what it applied; one that was restarted from that disk must not be taken at its old word for long.
ACK_STANDS = timedelta(seconds=90)


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


def applied(router: Router, now: datetime) -> Position:
    """What a router has applied: what its tag says, or its ack while that is young and says more.

    Of two epochs neither is the later by itself; there the ack is believed, which is sent with each change.
    """
    tag, ack = Position(router.epoch, router.revision), Position(router.acked_epoch, router.acked_revision)
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
