"""Notifications about rollouts that need a person: held at one stage for too long, or waiting for a stage's
approval.
"""

from datetime import timedelta

from django.conf import settings

from controlplane.core import clock
from controlplane.notifications import events, outbox
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import State
from rollout_app.models import Rollout

APPROVAL, EVIDENCE = "approval", "evidence"  # hold codes of `rollout_app.engine.holds`


def tell() -> int:
    """Send at most one message per rollout and stage. Return how many are new."""
    held = Rollout.objects.filter(state=State.RUNNING, stage_entered_at__isnull=False).exclude(hold_code="")
    now, told = clock.now(), 0
    for rollout in held.select_related("environment", "workload"):
        if rollout.hold_code == APPROVAL:
            told += _tell(rollout, events.APPROVAL_WAITS, "is waiting for an approval of its next stage")
        elif rollout.stage_entered_at is not None and rollout.stage_entered_at + _longest(rollout) <= now:
            told += _tell(rollout, events.HELD, f"has been held at stage {rollout.stage + 1} for too long")
    return told


def _longest(rollout: Rollout) -> timedelta:
    """Return how long the stage may take, pauses included, before it counts as held for too long."""
    minutes: float = settings.HELD_AFTER_MINUTES
    if rollout.hold_code == EVIDENCE:
        # Its plan makes it wait; one minute more, in which the evaluation ends the wait.
        minutes = max(minutes, Stage.from_dict(rollout.stages[rollout.stage]).min_minutes + 1)
    return timedelta(minutes=minutes, seconds=rollout.paused_s)


def _tell(rollout: Rollout, type_: str, what: str) -> bool:
    place = rollout.environment.name
    return outbox.emit(
        type_,
        f"The rollout of {rollout.workload.name} in {place} {what}: {rollout.hold_sentence}"[:500],
        environment=place,
        key=f"{type_} {rollout.pk} {rollout.stage} {rollout.stage_entered_at:%Y-%m-%dT%H:%M:%S.%f}",
        workload=rollout.workload.name,
        hold_code=rollout.hold_code,
        stage=rollout.stage,
        target={"kind": "rollout", "id": str(rollout.pk)},
    )
