"""When the control plane could hear its routers: only then does a router's silence mean anything.

Each gateway's `FleetWriter` extends the newest stretch of `Listening` while it can write to the database. A gap of
`GAP` or more begins a new stretch: the gateways were down, or the database was.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.core import clock
from policies_app.models import Listening

NOTED_EVERY_S = 5.0
# Shorter than this, a pause is no outage: a router's longest backoff and long poll take up the rest of
# `readback.SILENT_AFTER`.
GAP = timedelta(seconds=20)
SKEW = timedelta(seconds=5)  # a time further ahead than this was written by a clock that was put right since
FORGOTTEN_AFTER = timedelta(days=8)  # longer than any router is remembered


@dataclass(frozen=True, slots=True)
class Hearing:
    """The stretches in which some gateway listened, oldest first, each (from, to). They may overlap."""

    stretches: tuple[tuple[datetime, datetime], ...]

    def heard_out(self, at: datetime, silence: timedelta) -> datetime | None:
        """A router last heard before this moment had been silent for `silence`, without a break in the listening.

        None: until `at`, nobody has listened for that long at a stretch.
        """
        ends = [min(to, at) for began, to in self.stretches if min(to, at) - began >= silence]
        return max(ends) - silence if ends else None

    def since(self, at: datetime) -> datetime | None:
        """Since when somebody has been listening without a break; None: nobody listens at `at`."""
        now = [began for began, to in self.stretches if began <= at < to + GAP]
        return min(now) if now else None


def read_hearing() -> Hearing:
    return Hearing(tuple(Listening.objects.order_by("began_at").values_list("began_at", "until")))


def note_listening() -> None:
    """Extend the newest stretch to now, or begin one: after a gap, or when the clock was put back."""
    now = clock.now()
    newest = Listening.objects.order_by("began_at").last()
    if newest is not None and newest.began_at <= now and now - GAP < newest.until <= now + SKEW:
        Listening.objects.filter(pk=newest.pk, until__lt=now).update(until=now)
        return
    Listening.objects.filter(began_at__gt=now).delete()
    Listening.objects.filter(until__gt=now).update(until=now)
    Listening.objects.create(began_at=now, until=now)


def prune() -> int:
    """Forget stretches that ended before any router on record was heard."""
    deleted, _ = Listening.objects.filter(until__lt=clock.now() - FORGOTTEN_AFTER).delete()
    return deleted
