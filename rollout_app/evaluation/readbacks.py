"""The readback of a rollback, which ends when every router has applied it or has had enough time.

rolling_back → every counted router has applied the revision, or has been silent for two minutes → rolled_back
             → the control plane has listened for ten minutes; the stragglers are named            → rolled_back
"""

from datetime import datetime, timedelta

from controlplane.core.actors import SYSTEM
from pointsman.plurals import counted
from policies_app.fleet.readback import Fleet, Readback, read_fleet
from rollout_app import actions
from rollout_app.engine.states import READBACK_MINUTES
from rollout_app.models import Rollout

# Of uninterrupted listening, so that our own outage does not end the wait.
READBACK_FOR = timedelta(minutes=READBACK_MINUTES)


def confirm_when_followed(rollout: Rollout, now: datetime) -> Readback | None:
    """End the rollback if the fleet has followed; otherwise return its progress."""
    began = rollout.rolling_back_at or now
    since = rollout.started_at or began
    fleet = read_fleet(rollout.environment, now=now, back_to=min(since, began))
    readback = fleet.readback(rollout.rollback_revision or 0, changed_at=began, since=since)
    late = fleet.hearing.heard_out(now, READBACK_FOR)
    overdue = late is not None and late >= began
    if not overdue and not fleet.has_followed(readback, began):
        return readback
    actions.confirm_rolled_back(
        rollout,
        actor=SYSTEM,
        reason=_sentence(fleet, readback, overdue),
        readback=readback.as_dict(),
    )
    return None


def _sentence(fleet: Fleet, readback: Readback, overdue: bool) -> str:
    lost = ""
    if readback.lost:
        lost = (
            f" Silent since before the rollback: {', '.join(readback.lost)}. If they still run, they use the "
            "snapshot that they had."
        )
    if not readback.of:
        if readback.lost:
            return f"No router was in touch when the rollback was made.{lost}"
        return f"No router has ever been seen, so none had to follow revision {readback.revision}."
    confirmed = (
        f"{readback.confirmed} of {counted(readback.of, 'router')} confirmed revision {readback.revision}"
    )
    if readback.confirmed == readback.of:
        return f"{confirmed}.{lost}"
    if readback.awaited and overdue:
        return (
            f"After {READBACK_MINUTES} minutes, {confirmed}; missing: {', '.join(readback.stragglers)}.{lost}"
        )
    return f"{confirmed}; {', '.join(readback.silent)} fell silent.{lost}"
