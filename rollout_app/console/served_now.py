"""What is served now in a rollout's place, regardless of the rollout's own record. Reads only.

The rollout may have been reverted, overtaken or pinned since it ended.
"""

from dataclasses import dataclass

from policies_app.fleet.readback import Readback, read_back
from policies_app.models import Assignment
from rollout_app.engine.states import State
from rollout_app.models import Rollout


@dataclass(frozen=True, slots=True)
class ServedNow:
    """What is served now. `baseline`: the served version, or None. `reverted_by`: the rollout that undid this one.

    `pin_model`: empty without a pin; `readback`: how many routers follow the pin.
    """

    baseline: int | None
    pin_model: str = ""
    pin_reason: str = ""
    readback: Readback | None = None
    reverted_by: Rollout | None = None


def served_now(rollout: Rollout) -> ServedNow:
    assignment = (
        Assignment.objects.select_related("baseline")
        .only("baseline__number", "pin_model", "pin_reason", "revision", "changed_at")
        .filter(environment=rollout.environment_id, workload=rollout.workload_id)
        .first()
    )
    if assignment is None:
        return ServedNow(None, reverted_by=_reverted_by(rollout))
    readback = None
    if assignment.pin_model:
        readback = read_back(rollout.environment, assignment.revision, changed_at=assignment.changed_at)
    return ServedNow(
        assignment.baseline.number,
        assignment.pin_model,
        assignment.pin_reason,
        readback,
        _reverted_by(rollout),
    )


def _reverted_by(rollout: Rollout) -> Rollout | None:
    if rollout.state != State.COMPLETED:
        return None
    given_up = (State.ROLLED_BACK, State.ABORTED)
    return rollout.reverted_by.exclude(state__in=given_up).order_by("-created_at").first()
