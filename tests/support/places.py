"""Rollouts to test with, each brought where it is by the real actions."""

from datetime import datetime, timedelta
from typing import Any

from controlplane.core import clock
from controlplane.core.actors import Actor
from policies_app.models import Assignment, Listening, Router
from rollout_app import actions
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.traffic import Traffic

ANNA = Actor("user", "1", "anna", "1")  # proposes
BEN = Actor("user", "2", "ben", "2")  # approves and operates
PLAN: list[dict[str, Any]] = [
    {"mode": "shadow", "min_tasks": 200},
    {"mode": "percentage", "share_pcm": 10_000, "min_tasks": 50},
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 50},
    {"mode": "full"},
]


def proposed(*, four_eyes: bool = True, plan: Any = None, **fields: Any) -> Rollout:
    listening()
    environment = builders.environment(four_eyes=four_eyes)
    workload = builders.workload()
    builders.served(environment, workload)
    return actions.propose_rollout(
        environment,
        workload,
        builders.version(workload),
        plan=PLAN if plan is None else plan,
        reason="cheaper",
        **{"actor": ANNA} | fields,
    )


def approved(**fields: Any) -> Rollout:
    return actions.approve_rollout(proposed(**fields), actor=BEN, reason="looks right")


def started(*, calibrated: bool = True, **fields: Any) -> Rollout:
    """In its first stage; `calibrated`: with enough of the baseline known before."""
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
    """A gateway has been listening: since yesterday and until tomorrow, if nothing else is said."""
    now = clock.now()
    Listening.objects.create(
        began_at=began or now - timedelta(days=1), until=until or now + timedelta(days=1)
    )


def assignment(rollout: Rollout) -> Assignment:
    return Assignment.objects.get(environment=rollout.environment, workload=rollout.workload)
