"""Start, advance, complete, pause and resume a rollout."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.core import clock
from controlplane.core.actors import Actor
from rollout_app.actions.approvals import as_evidence, fixed_at_proposal, needed_approvals, start_approvals
from rollout_app.actions.refusals import require
from rollout_app.actions.transitions import (
    CLEARED,
    audited_transaction,
    loaded,
    lock_criteria,
    lock_for_move,
    locked_now,
    move,
    serving_only,
    serving_stage,
)
from rollout_app.engine.evidence import Stage
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import Event
from rollout_app.models import Approval, Rollout
from rollout_app.outcomes import baseline


def start_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Enter the first stage. The approval is checked again against what would start now."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.start", actor=actor, reason=reason) as reason:
        reference = _measured(rollout, Event.START)
        lock_for_move(rollout)
        now = clock.now()
        require(rollout, Event.START, now)
        approvals = [*start_approvals(rollout), *_stage_approvals(rollout, 0)]
        return _start(rollout, Event.START, now, reference, actor=actor, reason=reason, approvals=approvals)


def break_glass_start(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Start without an approval, even in a freeze. Takes one named operator, and the audit log marks it clearly."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.break_glass", actor=actor, reason=reason) as reason:
        reference = _measured(rollout, Event.BREAK_GLASS)
        lock_for_move(rollout)
        now = clock.now()
        require(rollout, Event.BREAK_GLASS, now)
        return _start(rollout, Event.BREAK_GLASS, now, reference, actor=actor, reason=reason, approvals=[])


def _measured(rollout: Rollout, event: Event) -> Reference:
    """Measure the baseline, unless the start is refused. Reading a week of outcomes takes longest, so it is done before
    the environment is locked; the caller checks again afterwards."""
    lock_criteria(rollout)
    now = clock.now()
    require(rollout, event, now)
    return baseline.reference(rollout, now)


def _start(
    rollout: Rollout,
    event: Event,
    now: datetime,
    reference: Reference,
    *,
    actor: Actor,
    reason: str,
    approvals: list[Approval],
) -> Rollout:
    # Rollouts proposed by older releases have no guardrails yet; set them now.
    guardrails = rollout.guardrails if rollout.terms else fixed_at_proposal(rollout, actor)["guardrails"]
    rollout.reference = reference.as_dict()
    changes = {
        "reference": rollout.reference,
        "guardrails": guardrails,
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
        evidence={"reference": rollout.reference, "guardrails": guardrails},
        approvals=[as_evidence(approval) for approval in approvals],
    )


def advance_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, evidence: Any = None, to: int | None = None
) -> Rollout:
    """Enter the next stage, or stage `to` if all stages before it are skippable. After the last, use
    `complete_rollout`.

    A person may advance a rollout that is on hold, unless a freeze, a pin, a disabled model or a missing
    approval prevents it.
    """
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.advance", actor=actor, reason=reason) as reason:
        lock_for_move(rollout)
        now = clock.now()
        require(rollout, Event.ADVANCE, now)
        following = _following(rollout, to)
        approvals = _stage_approvals(rollout, following)
        return move(
            rollout,
            Event.ADVANCE,
            actor=actor,
            reason=reason,
            stage=following,
            serve=serving_stage(rollout, following),
            changes=_entering(now),
            evidence=evidence,
            approvals=[as_evidence(approval) for approval in approvals] or None,
        )


def _following(rollout: Rollout, to: int | None) -> int:
    """Return the next stage, or the latest one up to `to` that only skippable stages precede."""
    following = rollout.stage + 1
    while to is not None and following < to and Stage.from_dict(rollout.stages[following]).skippable:
        following += 1
    return following


def complete_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, evidence: Any = None
) -> Rollout:
    """Make the candidate the baseline. Afterwards only a revert undoes it."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.complete", actor=actor, reason=reason) as reason:
        lock_for_move(rollout)
        require(rollout, Event.COMPLETE, clock.now())
        return move(
            rollout,
            Event.COMPLETE,
            actor=actor,
            reason=reason,
            serve={**serving_only(rollout.candidate), "replaces": rollout.baseline},
            changes={"ended_at": clock.now()},
            evidence=evidence,
        )


def pause_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Pause: the assignment stays as it is, nothing advances, and the stage's clock stops.

    The automatic rollback stays active, because a pause must not make the rollout less safe.
    """
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.pause", actor=actor, reason=reason) as reason:
        rollout = locked_now(rollout, actor)
        return move(rollout, Event.PAUSE, actor=actor, reason=reason, changes={"paused_at": clock.now()})


def resume_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Resume at the same stage, with the evidence that arrived during the pause."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.resume", actor=actor, reason=reason) as reason:
        began = rollout.paused_at or clock.now()
        paused = rollout.paused_s + (clock.now() - began) / timedelta(seconds=1)
        return move(
            rollout, Event.RESUME, actor=actor, reason=reason, changes={"paused_at": None, "paused_s": paused}
        )


def _entering(now: datetime) -> dict[str, Any]:
    return {"stage_entered_at": now, "paused_s": 0.0, **CLEARED}


def _stage_approvals(rollout: Rollout, stage: int) -> list[Approval]:
    return needed_approvals(rollout, stage) if Stage.from_dict(rollout.stages[stage]).approval else []
