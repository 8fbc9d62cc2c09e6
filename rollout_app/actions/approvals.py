"""Four eyes: who may say yes, to exactly what, and whether that yes still stands."""

import hashlib
from typing import Any
from uuid import UUID

import rfc8785

from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import ApprovalMissing, ApprovalStale, Forbidden, IllegalMove, SelfApproval
from rollout_app.actions.transitions import (
    audited_transaction,
    evaluate_soon,
    fresh_environment,
    legal,
    loaded,
    move,
    place,
)
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import APPROVABLE, Event, State, words
from rollout_app.models import Approval, Rollout


def binding(rollout: Rollout, stage: int | None = None) -> str:
    """SHA-256 over what an approval is a yes to. Whatever of it changes, the yes is no longer one to it."""
    approved: dict[str, Any] = {
        "candidate": rollout.candidate.digest,
        "baseline": rollout.baseline.number,
        "environment": rollout.environment.name,
        "stages": rollout.stages,
        "stage": stage,
    }
    return hashlib.sha256(rfc8785.dumps(approved)).hexdigest()


def approve_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, expected_binding: str | None = None
) -> Rollout:
    """Say yes to the start. If `expected_binding`, what was shown, changed since, nothing is approved."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.approve", actor=actor, reason=reason) as reason:
        legal(rollout, Event.APPROVE)
        approval = _approve(rollout, None, actor, reason, expected_binding)
        return move(rollout, Event.APPROVE, actor=actor, reason=reason, approvals=[as_evidence(approval)])


def approve_stage(
    rollout: Rollout | UUID | str,
    stage: int,
    *,
    actor: Actor,
    reason: str,
    expected_binding: str | None = None,
) -> Rollout:
    """Say yes to entering `stage`, which asks for it. It may be given before the stage is due."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.approve_stage", actor=actor, reason=reason) as reason:
        if State(rollout.state) not in APPROVABLE or not (
            rollout.stage < stage < len(rollout.stages) or (stage == 0 and rollout.state == State.SCHEDULED)
        ):
            raise IllegalMove(_not_ahead(rollout, stage))
        approval = _approve(rollout, stage, actor, reason, expected_binding)
        log.record(
            actor=actor,
            action="rollout.approve_stage",
            reason=reason,
            after={"stage": stage},
            approvals=[as_evidence(approval)],
            **place(rollout),
        )
        evaluate_soon(rollout)
    return rollout


def reject_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Say no. The rollout ends; a better one is proposed anew."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.reject", actor=actor, reason=reason) as reason:
        return move(rollout, Event.REJECT, actor=actor, reason=reason)


def standing_approval(rollout: Rollout, stage: int | None = None) -> Approval | None:
    """The newest yes that still stands: to exactly this, by somebody who neither wrote nor proposed it."""
    for approval in rollout.approvals.filter(stage=stage, binding=binding(rollout, stage)).order_by("-pk"):
        if is_somebody_else(rollout, approval.approver_user_id):
            return approval
    return None


def needed_approval(rollout: Rollout, stage: int | None = None) -> Approval:
    """`standing_approval`, or the refusal that says what is missing."""
    if approval := standing_approval(rollout, stage):
        return approval
    what = "the start" if stage is None else f"entering {_stage(rollout, stage).named}"
    if rollout.approvals.filter(stage=stage).exists():
        raise ApprovalStale(
            f"What was approved for {what} is not what would happen now: the candidate, the baseline, the "
            "environment or the plan changed since. Ask for a new approval."
        )
    raise ApprovalMissing(f"Nobody has approved {what} yet. An approver other than author and proposer can.")


def start_approval(rollout: Rollout) -> Approval | None:
    """The yes that the start needs (none where the environment asks for none), checked when it is applied."""
    return needed_approval(rollout) if fresh_environment(rollout).four_eyes else None


def _stage(rollout: Rollout, at: int) -> Stage:
    return Stage.from_dict(rollout.stages[at])


def _not_ahead(rollout: Rollout, stage: int) -> str:
    state = words(rollout.state)
    if not 0 <= stage < len(rollout.stages):
        return f"There is no stage {stage}: the plan has {len(rollout.stages)}, counted from 0."
    if State(rollout.state) not in APPROVABLE:
        return f"A stage is approved once the start is, and until the end; this rollout is {state}."
    now = _stage(rollout, rollout.stage).named
    return f"{_stage(rollout, stage).named.capitalize()} is not ahead: the rollout is {state} at {now}."


def as_evidence(approval: Approval) -> dict[str, Any]:
    return {
        "approver": approval.approver_label,
        "approver_user_id": approval.approver_user_id,
        "binding": approval.binding,
        "stage": approval.stage,
        "reason": approval.reason,
    }


def _approve(
    rollout: Rollout, stage: int | None, actor: Actor, reason: str, expected_binding: str | None
) -> Approval:
    bound = binding(rollout, stage)
    if expected_binding is not None and expected_binding != bound:
        raise ApprovalStale("It changed since you looked: read it again and approve what it is now.")
    if actor.user_id is None:
        raise Forbidden("An approval is a person's: use a session or a key that belongs to somebody.")
    if not is_somebody_else(rollout, actor.user_id):
        raise SelfApproval(
            f"{actor.label} wrote version {rollout.candidate.number} or proposed this rollout, or did so "
            "with a key: somebody else must approve it."
        )
    return Approval.objects.create(
        rollout=rollout,
        stage=stage,
        binding=bound,
        approver_label=actor.label,
        approver_user_id=actor.user_id,
        reason=reason,
    )


def is_somebody_else(rollout: Rollout, user_id: str) -> bool:
    """Four eyes: neither who wrote the candidate nor who proposed it, by session or by key."""
    return user_id not in (rollout.candidate.author_user_id, rollout.proposer_user_id)
