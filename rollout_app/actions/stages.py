"""Forward: start, advance, complete; and standing still: pause, resume."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import ApprovalStale, Conflict, Frozen, IllegalMove
from policies_app.models import Assignment
from rollout_app.actions.approvals import as_evidence, needed_approval, start_approval
from rollout_app.actions.transitions import (
    as_it_is,
    door,
    fresh_environment,
    legal,
    loaded,
    move,
    serving_only,
    serving_stage,
    still_on,
)
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.states import Event, State
from rollout_app.models import Approval, Rollout
from rollout_app.outcomes import minute_totals


def start_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Enter the first stage. The approval is checked again here, against what would start now."""
    rollout = loaded(rollout)
    with door(rollout, "rollout.start", actor=actor, reason=reason) as reason:
        if rollout.state == State.AWAITING_APPROVAL:
            start_approval(rollout)  # says what is missing, better than the table would
        approval = start_approval(rollout) if rollout.state == State.SCHEDULED else None
        return _start(rollout, Event.START, actor=actor, reason=reason, approvals=[approval])


def break_glass_start(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Start what nobody approved, through a freeze too. One operator, by name, and the log says so loudly."""
    rollout = loaded(rollout)
    with door(rollout, "rollout.break_glass", actor=actor, reason=reason) as reason:
        return _start(rollout, Event.BREAK_GLASS, actor=actor, reason=reason, approvals=[])


def _start(
    rollout: Rollout, event: Event, *, actor: Actor, reason: str, approvals: list[Approval | None]
) -> Rollout:
    legal(rollout, event)
    now = clock.now()
    if event is not Event.BREAK_GLASS:
        _not_frozen(rollout, now)
        approvals.append(_stage_approval(rollout, 0))
    _not_pinned(still_on(rollout, error=ApprovalStale))
    reference = minute_totals.reference(rollout, now)
    guardrails = guardrails_for(
        rollout.workload.guardrails.values("metric", "enabled", "margin", "weight", "bound")
    )
    rollout.reference = reference.as_dict()
    changes = {
        "reference": rollout.reference,
        "guardrails": [guardrail.as_dict() for guardrail in guardrails],
        "evidence": {},
        "started_at": now,
        **_entering(now),
    }
    return move(
        rollout,
        event,
        actor=actor,
        reason=reason,
        stage=0,
        serve=serving_stage(rollout, 0),
        changes=changes,
        evidence={"reference": rollout.reference, "guardrails": changes["guardrails"]},
        approvals=[as_evidence(approval) for approval in approvals if approval],
    )


def advance_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, evidence: Any = None
) -> Rollout:
    """Enter the next stage. Of the last one comes `complete_rollout`.

    A person may advance past what holds the rollout, except for a freeze, a pin or a missing approval.
    """
    rollout = loaded(rollout)
    with door(rollout, "rollout.advance", actor=actor, reason=reason) as reason:
        legal(rollout, Event.ADVANCE)
        following = rollout.stage + 1
        if following >= len(rollout.stages):
            raise IllegalMove("It is at its last stage already; what comes next is to complete it.")
        now = clock.now()
        _not_frozen(rollout, now)
        _not_pinned(still_on(rollout))
        approval = _stage_approval(rollout, following)
        return move(
            rollout,
            Event.ADVANCE,
            actor=actor,
            reason=reason,
            stage=following,
            serve=serving_stage(rollout, following),
            changes=_entering(now),
            evidence=evidence,
            approvals=[as_evidence(approval)] if approval else None,
        )


def complete_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, evidence: Any = None
) -> Rollout:
    """Make the candidate the baseline. From here the way back is a revert."""
    rollout = loaded(rollout)
    with door(rollout, "rollout.complete", actor=actor, reason=reason) as reason:
        legal(rollout, Event.COMPLETE)
        if rollout.stage + 1 < len(rollout.stages):
            at = Stage.from_dict(rollout.stages[rollout.stage]).named
            raise IllegalMove(f"It is at {at}, and only the plan's last stage completes. Advance it.")
        still_on(rollout)
        return move(
            rollout,
            Event.COMPLETE,
            actor=actor,
            reason=reason,
            serve=serving_only(rollout.candidate),
            changes={"ended_at": clock.now(), **CLEARED},
            evidence=evidence,
        )


def pause_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Stand still: what is served stays as it is, nothing advances, and the stage's clock stops.

    The automatic rollback stays armed: whoever pauses wants less to happen, not less safety.
    """
    rollout = loaded(rollout)
    with door(rollout, "rollout.pause", actor=actor, reason=reason) as reason:
        rollout = as_it_is(rollout, actor)
        return move(rollout, Event.PAUSE, actor=actor, reason=reason, changes={"paused_at": clock.now()})


def resume_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Go on where the pause stopped it, with the evidence that came in the meantime."""
    rollout = loaded(rollout)
    with door(rollout, "rollout.resume", actor=actor, reason=reason) as reason:
        began = rollout.paused_at or clock.now()
        paused = rollout.paused_s + (clock.now() - began) / timedelta(seconds=1)
        return move(
            rollout, Event.RESUME, actor=actor, reason=reason, changes={"paused_at": None, "paused_s": paused}
        )


# What the page shows of the last look, when there is nothing more to look at.
CLEARED = {"hold_code": "", "hold_sentence": "", "outlook": ""}


def _entering(now: datetime) -> dict[str, Any]:
    return {"stage_entered_at": now, "paused_s": 0.0, **CLEARED}


def _stage_approval(rollout: Rollout, stage: int) -> Approval | None:
    return needed_approval(rollout, stage) if Stage.from_dict(rollout.stages[stage]).approval else None


def _not_frozen(rollout: Rollout, now: datetime) -> None:
    environment = fresh_environment(rollout)
    if environment.frozen_until and now < environment.frozen_until:
        because = f" ({environment.freeze_reason})" if environment.freeze_reason else ""
        raise Frozen(
            f"{environment.name} is frozen until {environment.frozen_until:%Y-%m-%d %H:%M} UTC{because}: "
            "nothing starts or advances. A rollback works.",
            until=environment.frozen_until.isoformat(),
        )


def _not_pinned(assignment: Assignment) -> None:
    if assignment.pin_model:
        raise Conflict(
            f"{assignment.workload.name} is pinned to {assignment.pin_model} in "
            f"{assignment.environment.name}: a new stage would reach nobody. Unpin it first."
        )
