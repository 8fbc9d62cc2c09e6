"""Four eyes: who may say yes, to exactly what, and whether that yes still stands.

What a rollout is judged by is fixed when it is proposed and hashed into the binding, so that nothing of it can change
between the yes and the start. Who counts as a second person: `controlplane.access.four_eyes`.
"""

from typing import Any
from uuid import UUID

from controlplane.access import four_eyes
from controlplane.audit import chain, log
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import ApprovalMissing, ApprovalStale, Conflict, Forbidden, IllegalMove
from policies_app.actions.workloads import JUDGED_BY
from policies_app.models import Workload
from rollout_app.actions.transitions import (
    audited_transaction,
    evaluate_soon,
    fresh_environment,
    legal,
    loaded,
    lock_unmoved,
    move,
    place,
)
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.states import APPROVABLE, Event, State, words
from rollout_app.models import Approval, Rollout


def binding(rollout: Rollout, stage: int | None = None) -> str:
    """SHA-256 over what an approval is a yes to. When any of it changes, the yes no longer counts."""
    return chain.digest(
        {
            "candidate": rollout.candidate.digest,
            "baseline": rollout.baseline.number,
            "environment": rollout.environment.name,
            "stages": rollout.stages,
            "guardrails": rollout.guardrails,
            "terms": rollout.terms,
            "stage": stage,
        }
    )


def fixed_at_proposal(rollout: Rollout, actor: Actor) -> dict[str, Any]:
    """The columns that a proposal and every amendment set: what the rollout is judged by, and who had a part in it.

    Four eyes never end for a rollout that was proposed under them: switched off meanwhile, they would be no guard.
    """
    overrides = rollout.workload.guardrails.values("metric", "enabled", "margin", "weight", "bound")
    return {
        "guardrails": [guardrail.as_dict() for guardrail in guardrails_for(overrides)],
        # Counted, so that an amendment voids every yes of before, also one that changes back what it changed.
        "terms": {**_terms_now(rollout), "edition": rollout.terms.get("edition", 0) + 1},
        "four_eyes": rollout.four_eyes or fresh_environment(rollout).four_eyes,
        "contributors": four_eyes.with_contributor(rollout.contributors, actor.user_id),
    }


def _terms_now(rollout: Rollout) -> dict[str, Any]:
    values: dict[str, Any] = Workload.objects.values(*sorted(JUDGED_BY)).get(pk=rollout.workload_id)
    return {name: str(value) if name == "quality_bar" else value for name, value in values.items()}


def require_same_terms(rollout: Rollout) -> None:
    """Raise `ApprovalStale` when the workload is no longer judged as it was when the rollout was proposed."""
    if not needs_approval(rollout):
        return
    if changed := sorted(
        name for name, value in _terms_now(rollout).items() if rollout.terms.get(name) != value
    ):
        raise ApprovalStale(
            f"{rollout.workload.name} is judged differently since this was proposed: {', '.join(changed)} changed. "
            "Amend the rollout and have it approved as it is now."
        )


def approve_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, expected_binding: str
) -> Rollout:
    """Say yes to the start. If `expected_binding`, what was shown, changed since, nothing is approved.

    Where two approvers are needed, the first one's yes is kept and the rollout goes on waiting.
    """
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.approve", actor=actor, reason=reason) as reason:
        legal(rollout, Event.APPROVE)
        given = _approve(rollout, None, actor, reason, expected_binding)
        kept = [as_evidence(approval) for approval in given]
        needed = four_eyes.approvals_needed(contributors(rollout))
        if len(given) >= needed:
            return move(rollout, Event.APPROVE, actor=actor, reason=reason, approvals=kept)
        log.record(
            actor=actor,
            action="rollout.approve",
            reason=reason,
            after={"approvals": len(given), "needed": needed},
            approvals=kept,
            **place(rollout),
        )
    return rollout


def approve_stage(
    rollout: Rollout | UUID | str,
    stage: int,
    *,
    actor: Actor,
    reason: str,
    expected_binding: str,
) -> Rollout:
    """Say yes to entering `stage`, which asks for it. It may be given before the stage is due."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.approve_stage", actor=actor, reason=reason) as reason:
        if State(rollout.state) not in APPROVABLE or not (
            rollout.stage < stage < len(rollout.stages) or (stage == 0 and rollout.state == State.SCHEDULED)
        ):
            raise IllegalMove(_not_ahead(rollout, stage))
        given = _approve(rollout, stage, actor, reason, expected_binding)
        log.record(
            actor=actor,
            action="rollout.approve_stage",
            reason=reason,
            after={"stage": stage},
            approvals=[as_evidence(approval) for approval in given],
            **place(rollout),
        )
        evaluate_soon(rollout)
    return rollout


def reject_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Say no. The rollout ends; a better one is proposed anew."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.reject", actor=actor, reason=reason) as reason:
        return move(rollout, Event.REJECT, actor=actor, reason=reason)


def withdraw_approval(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Take back one's own yes to the start. The rollout waits for an approval again."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.withdraw_approval", actor=actor, reason=reason) as reason:
        legal(rollout, Event.WITHDRAW_APPROVAL)
        require_an_approval(rollout)
        own = [a for a in standing_approvals(rollout) if a.approver_user_id == actor.user_id]
        if not own:
            raise Forbidden("There is no approval of yours to take back; an approver can reject the rollout.")
        Approval.objects.filter(pk__in=[approval.pk for approval in own]).update(withdrawn_at=clock.now())
        taken_back = [as_evidence(approval) for approval in own]
        return move(rollout, Event.WITHDRAW_APPROVAL, actor=actor, reason=reason, approvals=taken_back)


def require_an_approval(rollout: Rollout) -> None:
    """Raise `Conflict` where nobody's yes to the start stands."""
    if not rollout.approvals.filter(stage=None, withdrawn_at=None).exists():
        raise Conflict("Nobody has approved it.")


def contributors(rollout: Rollout) -> list[str | None]:
    """The people who ever wrote, proposed or amended it; None for a key that belongs to nobody."""
    return four_eyes.with_contributor(rollout.contributors, rollout.candidate.author_user_id)


def standing_approvals(rollout: Rollout, stage: int | None = None) -> list[Approval]:
    """The approvals that count now, the newest of each person: of exactly this, by people who still are approvers
    and never had a part in it."""
    given = {
        approval.approver_user_id: approval
        for approval in rollout.approvals.filter(
            stage=stage, binding=binding(rollout, stage), withdrawn_at=None
        ).order_by("pk")
    }
    counted = four_eyes.still_count(given, contributors(rollout), rollout.environment.name)
    return [approval for user_id, approval in given.items() if user_id in counted]


def standing_approval(rollout: Rollout, stage: int | None = None) -> Approval | None:
    """The newest approval, where there are as many as it takes."""
    standing = standing_approvals(rollout, stage)
    enough = len(standing) >= four_eyes.approvals_needed(contributors(rollout))
    return standing[-1] if enough else None


def needed_approvals(rollout: Rollout, stage: int | None = None) -> list[Approval]:
    """`standing_approvals`, or the refusal that says what is missing."""
    standing, had_a_part = standing_approvals(rollout, stage), contributors(rollout)
    if len(standing) >= four_eyes.approvals_needed(had_a_part):
        return standing
    what = "the start" if stage is None else f"entering {_stage(rollout, stage).named}"
    given = rollout.approvals.filter(stage=stage, withdrawn_at=None)
    if given.exists() and not standing:
        if given.filter(binding=binding(rollout, stage)).exists():
            raise ApprovalStale(
                f"The approval of {what} counts no longer: who gave it is no approver of "
                f"{rollout.environment.name} any more. {four_eyes.missing_sentence(had_a_part, 0)}"
            )
        raise ApprovalStale(
            f"What was approved for {what} is not what would happen now: the candidate, the baseline, the plan, the "
            "guardrails or how the workload is judged changed since. Ask for a new approval."
        )
    begun = f"Not enough people have approved {what} yet." if standing else f"Nobody has approved {what} yet."
    raise ApprovalMissing(f"{begun} {four_eyes.missing_sentence(had_a_part, len(standing))}")


def needs_approval(rollout: Rollout) -> bool:
    """Whether a second person is needed: where it was proposed under four eyes, and where they are on now."""
    return rollout.four_eyes or fresh_environment(rollout).four_eyes


def start_approvals(rollout: Rollout) -> list[Approval]:
    """The approvals that the start needs (none where one person is enough), checked when they are applied."""
    return needed_approvals(rollout) if needs_approval(rollout) else []


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
    rollout: Rollout, stage: int | None, actor: Actor, reason: str, expected_binding: str
) -> list[Approval]:
    """Keep this person's approval; returns all that count now."""
    lock_unmoved(rollout)
    bound = binding(rollout, stage)
    if expected_binding != bound:
        raise ApprovalStale("It changed since you looked: read it again and approve what it is now.")
    if not rollout.terms:
        raise ApprovalStale("It was proposed before guardrails were fixed at the proposal: amend it first.")
    agreed = [approval.approver_user_id for approval in standing_approvals(rollout, stage)]
    four_eyes.refuse_approver(actor, contributors(rollout), agreed)
    # Who took a yes back and gives it again has one row: the log's last word on it.
    Approval.objects.update_or_create(
        rollout=rollout,
        stage=stage,
        binding=bound,
        approver_user_id=str(actor.user_id),
        defaults={"approver_label": actor.label, "reason": reason, "at": clock.now(), "withdrawn_at": None},
    )
    return standing_approvals(rollout, stage)


def is_somebody_else(rollout: Rollout, user_id: str) -> bool:
    """Whether this person had no part in it: neither wrote, proposed nor amended it, by session or by key."""
    return user_id not in contributors(rollout)
