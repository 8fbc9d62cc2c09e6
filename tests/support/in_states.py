"""A rollout in each state, brought there by the real actions."""

from collections.abc import Callable
from typing import Any

from rollout_app import actions
from rollout_app.engine.states import State
from rollout_app.models import Rollout
from tests.support import places
from tests.support.places import BEN, approve_stage

PLAN: list[dict[str, Any]] = [
    {"mode": "percentage", "share_pcm": 10_000},
    {"mode": "full", "approval": True},
]
BACK: dict[str, Any] = {"actor": BEN, "reason": "bad answers"}


def running() -> Rollout:
    return places.started(plan=PLAN, calibrated=False)


def read_back(rollout: Rollout) -> Rollout:
    return actions.confirm_rolled_back(rollout, actor=BEN, reason="all confirmed", readback={})


def completed() -> Rollout:
    rollout = approve_stage(running(), 1, actor=BEN, reason="yes")
    return actions.complete_rollout(actions.advance_rollout(rollout, **BACK), **BACK)


IN: dict[State, Callable[[], Rollout]] = {
    State.DRAFT: lambda: places.proposed(plan=PLAN, draft=True),
    State.AWAITING_APPROVAL: lambda: places.proposed(plan=PLAN),
    State.REJECTED: lambda: actions.reject_rollout(places.proposed(plan=PLAN), **BACK),
    State.SCHEDULED: lambda: places.approved(plan=PLAN),
    State.RUNNING: running,
    State.PAUSED: lambda: actions.pause_rollout(running(), **BACK),
    State.ROLLING_BACK: lambda: actions.roll_back_rollout(running(), **BACK),
    State.ROLLED_BACK: lambda: read_back(actions.roll_back_rollout(running(), **BACK)),
    State.ABORTED: lambda: read_back(actions.abort_rollout(running(), **BACK)),
    State.COMPLETED: completed,
    State.CANCELLED: lambda: actions.cancel_rollout(places.approved(plan=PLAN), **BACK),
}
