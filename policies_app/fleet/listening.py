"""Record when the control plane could hear its routers. Only then does a router's silence mean anything.

Each gateway's `FleetWriter` extends the newest `Listening` period while it can write to the database. After a gap of
`GAP` or more a new period begins: the gateways were down, or the database was.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.core import clock
from policies_app.models import Listening

NOTED_EVERY_S = 5.0
# A shorter pause is not an outage. A router's longest backoff and long poll take up the rest of
# `readback.SILENT_AFTER`.
GAP = timedelta(seconds=20)
# A time further in the future was written by a clock that has been corrected since.
SKEW = timedelta(seconds=5)
FORGOTTEN_AFTER = timedelta(days=8)  # longer than any router is kept


@dataclass(frozen=True, slots=True)
class Hearing:
    """The periods (from, to) in which some gateway listened, oldest first. They may overlap."""

    stretches: tuple[tuple[datetime, datetime], ...]

    def heard_out(self, at: datetime, silence: timedelta) -> datetime | None:
        """Return the time before which a router's last poll means that it was silent for `silence` by `at`.

        All of that silence lies in one listening period. None if nobody had listened that long by `at`.
        """
        ends = [min(to, at) for began, to in self.stretches if min(to, at) - began >= silence]
        return max(ends) - silence if ends else None

    def since(self, at: datetime) -> datetime | None:
        """Return since when somebody has listened without a break; None if nobody listens at `at`."""
        now = [began for began, to in self.stretches if began <= at < to + GAP]
        return min(now) if now else None


def read_hearing() -> Hearing:
    return Hearing(tuple(Listening.objects.order_by("began_at").values_list("began_at", "until")))


def note_listening() -> None:
    """Extend the newest period to now, or start one after a gap or after the clock was set back."""
    now = clock.now()
    newest = Listening.objects.order_by("began_at").last()
    if newest is not None and newest.began_at <= now and now - GAP < newest.until <= now + SKEW:
        Listening.objects.filter(pk=newest.pk, until__lt=now).update(until=now)
        return
    Listening.objects.filter(began_at__gt=now).delete()
    Listening.objects.filter(until__gt=now).update(until=now)
    Listening.objects.create(began_at=now, until=now)


def prune() -> int:
    """Delete periods that ended before any known router was heard."""
    deleted, _ = Listening.objects.filter(until__lt=clock.now() - FORGOTTEN_AFTER).delete()
    return deleted
