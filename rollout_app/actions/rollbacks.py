"""Roll back, abort, confirm that the fleet has followed, and revert a completed rollout."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.ids import uuid7
from rollout_app.actions.proposals import outline
from rollout_app.actions.refusals import require
from rollout_app.actions.transitions import (
    audited_transaction,
    loaded,
    lock_for_move,
    locked_now,
    move,
    serving_only,
    serving_stage,
)
from rollout_app.engine import plans
from rollout_app.engine.states import Event, State
from rollout_app.models import Rollout

# Taking a candidate out of traffic always works: it needs no approval, ignores freezes and pins, and takes
# one person.


def roll_back_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, evidence: Any = None
) -> Rollout:
    """Serve the baseline to all traffic at once. The rollout is `rolling_back` until the fleet confirms."""
    return _serve_baseline(rollout, Event.ROLL_BACK, actor=actor, reason=reason, evidence=evidence)


def abort_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Roll back and call off the plan. Unlike a rollback, this says nothing against the candidate."""
    return _serve_baseline(rollout, Event.ABORT, actor=actor, reason=reason)


def _serve_baseline(
    rollout: Rollout | UUID | str, event: Event, *, actor: Actor, reason: str, evidence: Any = None
) -> Rollout:
    rollout = loaded(rollout)
    with audited_transaction(rollout, f"rollout.{event}", actor=actor, reason=reason) as reason:
        rollout = locked_now(rollout, actor)
        return move(
            rollout,
            event,
            actor=actor,
            reason=reason,
            serve=serving_only(rollout.baseline),
            changes={
                "rolling_back_at": clock.now(),
                "rollback_reason": reason,
                "paused_at": None,
                "readback": {},
            },
            evidence=evidence,
        )


def confirm_rolled_back(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, readback: Mapping[str, Any]
) -> Rollout:
    """End a rollback: all routers applied it, or the wait timed out and `readback` names those that did not."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.confirm", actor=actor, reason=reason) as reason:
        return move(
            rollout,
            _confirming(rollout),
            actor=actor,
            reason=reason,
            changes={"ended_at": clock.now(), "readback": dict(readback)},
            evidence={"readback": dict(readback)},
        )


def _confirming(rollout: Rollout) -> Event:
    began = rollout.transitions.filter(after_state=State.ROLLING_BACK).last()
    return Event.CONFIRM_ABORT if began and began.event == Event.ABORT else Event.CONFIRM_ROLLBACK


def revert_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Undo a completed rollout with a new rollout to the previous version. One person can do so within 72 hours.

    No approval is needed because the earlier version was already approved and served to all traffic.
    """
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.revert", actor=actor, reason=reason) as reason:
        lock_for_move(rollout)
        require(rollout, Event.REVERT, clock.now())
        name = "immediate"
        stages = plans.check(plans.SAVED[name][1])  # not the row, which people may edit
        back = Rollout(
            pk=uuid7(),
            environment=rollout.environment,
            workload=rollout.workload,
            baseline=rollout.candidate,
            candidate=rollout.baseline,
            plan_name=name,
            stages=stages,
            reason=reason,
            proposer_label=actor.label,
            proposer_user_id=actor.user_id,
            reverts=rollout,
        )
        back.salt = str(back.pk)
        back.save(force_insert=True)
        now = clock.now()
        return move(
            back,
            Event.REVERT,
            actor=actor,
            reason=reason,
            stage=0,
            serve=serving_stage(back, 0),
            changes={"started_at": now, "stage_entered_at": now},
            evidence={"reverts": str(rollout.pk), **outline(back)},
        )
