"""Four eyes: who may approve a rollout, what exactly they approve, and whether an approval still counts.

The criteria for judging a rollout are fixed when it is proposed and hashed into the binding, so nothing can change
between the approval and the start. `controlplane.access.four_eyes` decides who counts as a second person.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    four_eyes_apply,
    fresh_environment,
    legal,
    loaded,
    lock_unmoved,
    move,
    place,
)
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.states import APPROVABLE, ENDED, Event, State, words
from rollout_app.models import Approval, Rollout


def binding(rollout: Rollout, stage: int | None = None) -> str:
    """Return the SHA-256 of everything that an approval covers. An approval with another binding does not count."""
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
    """Return the columns that a proposal and every amendment set: the criteria for judging it, and its contributors.

    A rollout that was proposed under four eyes keeps that rule. Otherwise anyone could bypass it by switching it off.
    """
    overrides = rollout.workload.guardrails.values("metric", "enabled", "margin", "weight", "bound")
    return {
        "guardrails": [guardrail.as_dict() for guardrail in guardrails_for(overrides)],
        # The edition makes every amendment void all earlier approvals, even one that restores the old values.
        "terms": {
            **terms_now([rollout])[rollout.workload_id],
            "edition": rollout.terms.get("edition", 0) + 1,
        },
        "four_eyes": four_eyes_apply(rollout, fresh_environment(rollout)),
        "contributors": four_eyes.with_contributor(rollout.contributors, actor.user_id),
    }


Terms = Mapping[str, Any]


def terms_now(rollouts: Iterable[Rollout]) -> dict[int, Terms]:
    """Return the present criteria for judging, by the rollout's workload."""
    rows = Workload.objects.filter(pk__in={rollout.workload_id for rollout in rollouts})
    return {
        row.pop("pk"): {name: str(value) if name == "quality_bar" else value for name, value in row.items()}
        for row in rows.values("pk", *sorted(JUDGED_BY))
    }


def require_same_terms(rollout: Rollout, now: Terms) -> None:
    """Raise `ApprovalStale` if the workload's judging criteria changed since the rollout was proposed."""
    if changed := sorted(name for name, value in now.items() if rollout.terms.get(name) != value):
        raise ApprovalStale(
            f"The criteria for judging {rollout.workload.name} changed after this rollout was proposed: "
            f"{', '.join(changed)}. Amend the rollout and ask for a new approval."
        )


def approve_rollout(
    rollout: Rollout | UUID | str, *, actor: Actor, reason: str, expected_binding: str
) -> Rollout:
    """Approve the start. Raise `ApprovalStale` if the rollout no longer matches `expected_binding`, the one shown.

    Where two approvals are needed, the first is recorded and the rollout keeps waiting for the second.
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
    """Approve entering `stage`. An approver can do so before the stage is due."""
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
    """Reject the rollout, which ends it. An improved one needs a new proposal."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.reject", actor=actor, reason=reason) as reason:
        return move(rollout, Event.REJECT, actor=actor, reason=reason)


def withdraw_approval(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Withdraw the actor's own approval of the start. The rollout waits for an approval again."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.withdraw_approval", actor=actor, reason=reason) as reason:
        legal(rollout, Event.WITHDRAW_APPROVAL)
        require_an_approval(rollout)
        own = [a for a in standing_approvals(rollout) if a.approver_user_id == actor.user_id]
        if not own:
            raise Forbidden("You have no approval to withdraw. An approver can reject the rollout instead.")
        Approval.objects.filter(pk__in=[approval.pk for approval in own]).update(withdrawn_at=clock.now())
        taken_back = [as_evidence(approval) for approval in own]
        return move(rollout, Event.WITHDRAW_APPROVAL, actor=actor, reason=reason, approvals=taken_back)


@dataclass(frozen=True, slots=True)
class Given:
    """The approvals of many rollouts that nobody withdrew, and who may approve, read at once (`given_to`)."""

    approvals: Mapping[UUID, Sequence[Approval]]
    may_approve: four_eyes.MayApprove


def given_to(rollouts: Iterable[Rollout]) -> Given:
    rows = Approval.objects.filter(rollout__in={rollout.pk for rollout in rollouts}, withdrawn_at=None)
    found: dict[UUID, list[Approval]] = {}
    for approval in rows.order_by("pk"):
        found.setdefault(approval.rollout_id, []).append(approval)
    approvers = {approval.approver_user_id for each in found.values() for approval in each}
    return Given(found, four_eyes.who_may_approve(approvers))


def _given(rollout: Rollout, stage: int | None, known: Given | None) -> list[Approval]:
    """Return the approvals of the start or of a stage that nobody withdrew, oldest first."""
    if known is None:
        return list(rollout.approvals.filter(stage=stage, withdrawn_at=None).order_by("pk"))
    return [approval for approval in known.approvals.get(rollout.pk, ()) if approval.stage == stage]


def require_an_approval(rollout: Rollout, known: Given | None = None) -> None:
    """Raise `Conflict` if there is no approval of the start."""
    if not _given(rollout, None, known):
        raise Conflict("Nobody has approved it.")


def contributors(rollout: Rollout) -> list[str | None]:
    """Return the ids of everyone who wrote, proposed or amended it; None stands for a key without a person."""
    return four_eyes.with_contributor(rollout.contributors, rollout.candidate.author_user_id)


def standing_approvals(rollout: Rollout, stage: int | None = None) -> list[Approval]:
    """Return the approvals that count now, the newest of each person.

    An approval counts if it has the current binding and its approver still has the role and is not a contributor.
    """
    return _standing(rollout, _bound(rollout, stage, _given(rollout, stage, None)), None)


def _bound(rollout: Rollout, stage: int | None, given: Iterable[Approval]) -> list[Approval]:
    bound = binding(rollout, stage)
    return [approval for approval in given if approval.binding == bound]


def _standing(rollout: Rollout, bound: Iterable[Approval], known: Given | None) -> list[Approval]:
    newest = {approval.approver_user_id: approval for approval in bound}
    may_approve = known.may_approve if known else None
    counted = four_eyes.still_count(newest, contributors(rollout), rollout.environment.name, may_approve)
    return [approval for user_id, approval in newest.items() if user_id in counted]


def standing_approval(rollout: Rollout, stage: int | None = None) -> Approval | None:
    """Return the newest approval that counts, or None if there are not enough of them."""
    standing = standing_approvals(rollout, stage)
    enough = len(standing) >= four_eyes.approvals_needed(contributors(rollout))
    return standing[-1] if enough else None


def counting(rollout: Rollout, approvals: Iterable[Approval]) -> set[int]:
    """Return the ids of those of a rollout's approvals that count.

    One that is still needed counts while its approver may approve; one that has done its work stays right.
    """
    bound = [
        one for one in approvals if one.withdrawn_at is None and one.binding == binding(rollout, one.stage)
    ]
    over = rollout.state in ENDED
    needed = {
        one.stage
        for one in bound
        if not over and (rollout.started_at is None or (one.stage is not None and one.stage > rollout.stage))
    }
    standing = {one.pk for stage in needed for one in standing_approvals(rollout, stage)}
    return {one.pk for one in bound if one.stage not in needed or one.pk in standing}


def needed_approvals(
    rollout: Rollout, stage: int | None = None, known: Given | None = None
) -> list[Approval]:
    """Return `standing_approvals`, or raise an error that says what is missing."""
    given = _given(rollout, stage, known)
    bound = _bound(rollout, stage, given)
    standing, had_a_part = _standing(rollout, bound, known), contributors(rollout)
    if len(standing) >= four_eyes.approvals_needed(had_a_part):
        return standing
    what = "the start" if stage is None else f"entering {_stage(rollout, stage).named}"
    if given and not standing:
        if bound:
            raise ApprovalStale(
                f"The approval of {what} no longer counts: the person who gave it is no longer an approver in "
                f"{rollout.environment.name}. {four_eyes.missing_sentence(had_a_part, 0)}"
            )
        raise ApprovalStale(
            f"The approval of {what} is out of date: the candidate, the baseline, the plan, the guardrails or the "
            "criteria for judging the workload have changed. Ask for a new approval."
        )
    begun = f"Not enough people have approved {what} yet." if standing else f"Nobody has approved {what} yet."
    raise ApprovalMissing(f"{begun} {four_eyes.missing_sentence(had_a_part, len(standing))}")


def number_needed(rollout: Rollout) -> int:
    """Return how many people must approve the start. A rollout that has started needed what applied then."""
    started = rollout.started_at is not None
    applies = rollout.four_eyes if started else four_eyes_apply(rollout, rollout.environment)
    return four_eyes.approvals_needed(contributors(rollout)) if applies else 0


def start_approvals(rollout: Rollout) -> list[Approval]:
    """Return the approvals that the start needs, checked now. Empty if four eyes do not apply."""
    return needed_approvals(rollout) if four_eyes_apply(rollout, fresh_environment(rollout)) else []


def _stage(rollout: Rollout, at: int) -> Stage:
    return Stage.from_dict(rollout.stages[at])


def _not_ahead(rollout: Rollout, stage: int) -> str:
    state = words(rollout.state)
    if not 0 <= stage < len(rollout.stages):
        return f"There is no stage {stage}: the plan has {len(rollout.stages)}, counted from 0."
    if State(rollout.state) not in APPROVABLE:
        return f"A stage can be approved only after the start is approved and before the rollout ends; it is {state}."
    now = _stage(rollout, rollout.stage).named
    return (
        f"{_stage(rollout, stage).named.capitalize()} is not a later stage: the rollout is {state} at {now}."
    )


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
    """Record this person's approval and return all approvals that count now."""
    lock_unmoved(rollout)
    bound = binding(rollout, stage)
    if expected_binding != bound:
        raise ApprovalStale("The rollout changed after you opened it. Read it again before you approve it.")
    if not rollout.terms:
        raise ApprovalStale(
            "This rollout was proposed under an older release, which did not record its guardrails. Amend it first."
        )
    agreed = [approval.approver_user_id for approval in standing_approvals(rollout, stage)]
    four_eyes.refuse_approver(actor, contributors(rollout), agreed)
    # Withdrawing an approval and giving it again updates one row; the audit log keeps both events.
    Approval.objects.update_or_create(
        rollout=rollout,
        stage=stage,
        binding=bound,
        approver_user_id=str(actor.user_id),
        defaults={"approver_label": actor.label, "reason": reason, "at": clock.now(), "withdrawn_at": None},
    )
    return standing_approvals(rollout, stage)


def is_somebody_else(rollout: Rollout, user_id: str) -> bool:
    """Return whether this person is not a contributor: did not write, propose or amend it, by session or by key."""
    return user_id not in contributors(rollout)
