"""Rollouts for tests, each brought to its state by the real actions."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User

from controlplane.access.models import Membership
from controlplane.core import clock
from controlplane.core.actors import Actor
from policies_app.models import Assignment, Listening, Router, Workload
from rollout_app import actions
from rollout_app.actions.transitions import loaded
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.traffic import Traffic

# People with reserved ids and names, so that a test can have its own anna.
ANNA = Actor("user", "9001", "anna", "9001")  # writes and proposes
BEN = Actor("user", "9002", "ben", "9002")  # approves and operates
CARL = Actor("user", "9003", "carl", "9003")  # approves, too
PLAN: list[dict[str, Any]] = [
    {"mode": "shadow", "min_tasks": 200, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 10_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "full"},
]


def people() -> None:
    """Create Anna, Ben and Carl as people whose approval counts."""
    for actor in (ANNA, BEN, CARL):
        user, new = User.objects.get_or_create(
            pk=int(actor.id), defaults={"username": f"{actor.label} of places"}
        )
        if new:
            Membership.objects.create(user=user, role="approver")


def approve(rollout: Rollout | UUID, *, actor: Actor = BEN, reason: str = "looks right") -> Rollout:
    """Approve the start of the rollout in its current state."""
    rollout = loaded(rollout)
    return actions.approve_rollout(
        rollout, actor=actor, reason=reason, expected_binding=actions.binding(rollout)
    )


def approve_stage(
    rollout: Rollout | UUID, stage: int, *, actor: Actor = BEN, reason: str = "looks right"
) -> Rollout:
    """Approve entering this stage in its current state."""
    rollout = loaded(rollout)
    bound = actions.binding(rollout, stage)
    return actions.approve_stage(rollout, stage, actor=actor, reason=reason, expected_binding=bound)


def proposed(
    *,
    four_eyes: bool = True,
    plan: Any = None,
    prepare: Callable[[Workload], object] = lambda workload: None,
    **fields: Any,
) -> Rollout:
    """`prepare` sets up the workload, because its criteria are fixed when the rollout is proposed."""
    people()
    listening()
    environment = builders.environment(four_eyes=four_eyes)
    workload = builders.workload()
    builders.served(environment, workload)
    prepare(workload)
    return actions.propose_rollout(
        environment,
        workload,
        builders.version(workload, actor=ANNA),
        plan=PLAN if plan is None else plan,
        reason="cheaper",
        **{"actor": ANNA} | fields,
    )


def approved(**fields: Any) -> Rollout:
    return approve(proposed(**fields))


def started(*, calibrated: bool = True, **fields: Any) -> Rollout:
    """In its first stage. `calibrated`: enough is known about the baseline before."""
    rollout = approved(**fields)
    if calibrated:
        Traffic(rollout, start=clock.now() - timedelta(days=1)).before()
    return actions.start_rollout(rollout, actor=BEN, reason="now")


def completed() -> Rollout:
    rollout = started(plan=[{"mode": "full"}], calibrated=False)
    return actions.complete_rollout(rollout, actor=BEN, reason="all of it")


def router(
    rollout: Rollout,
    revision: int | None = None,
    instance: str = "r-1",
    polled_at: datetime | None = None,
) -> Router:
    """A router that polled just now (or then) and applied `revision` (None: the newest)."""
    rollout.environment.refresh_from_db()
    return Router.objects.update_or_create(
        environment=rollout.environment,
        instance=instance,
        defaults={
            "epoch": rollout.environment.epoch,
            "revision": rollout.environment.revision if revision is None else revision,
            "polled_at": polled_at or clock.now(),
        },
    )[0]


def listening(began: datetime | None = None, until: datetime | None = None) -> None:
    """A gateway is listening, by default from yesterday until tomorrow."""
    now = clock.now()
    Listening.objects.create(
        began_at=began or now - timedelta(days=1), until=until or now + timedelta(days=1)
    )


def assignment(rollout: Rollout) -> Assignment:
    return Assignment.objects.get(environment=rollout.environment, workload=rollout.workload)
