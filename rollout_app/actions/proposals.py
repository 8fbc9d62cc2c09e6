"""What happens before a rollout starts: propose, amend, submit, cancel."""

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict, InvalidInput, NotFound
from controlplane.core.ids import uuid7
from policies_app.actions import served_assignment
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app.actions.approvals import fixed_at_proposal
from rollout_app.actions.refusals import require
from rollout_app.actions.transitions import audited_transaction, checked_reason, loaded, move, place
from rollout_app.engine import plans
from rollout_app.engine.states import Event, State
from rollout_app.models import Plan, Rollout

PlanLike = Plan | str | Sequence[Any]


def propose_rollout(
    environment: Environment,
    workload: Workload,
    candidate: PolicyVersion,
    *,
    plan: PlanLike,
    reason: str,
    actor: Actor,
    scheduled_for: datetime | None = None,
    draft: bool = False,
) -> Rollout:
    """Propose to move `environment`'s assignment of `workload` from its current baseline to `candidate`.

    `plan` is a saved plan, its name, or a list of stages; the rollout keeps a copy. If the environment requires four
    eyes, the rollout waits for an approval; otherwise it is ready to start. With `scheduled_for` it starts by itself
    at that time. A later rollout of the same candidate digest reuses the earlier salt, so the same units see the
    candidate first. Raises `NotServed`, `PlanRefused`, `NotFound` (no such plan) or `Conflict` (already served).
    """
    rollout = _unsaved(environment, workload, candidate, plan, checked_reason(reason), actor, scheduled_for)
    with audited_transaction(rollout, "rollout.propose", actor=actor, reason=reason) as reason:
        rollout.baseline = served_assignment(environment.pk, workload.pk).baseline
        if rollout.baseline.pk == candidate.pk:
            raise Conflict(
                f"{environment.name} already serves version {candidate.number} of {workload.name}; there is "
                "nothing to roll out."
            )
        rollout.save(force_insert=True)
        if not draft:
            return submit(rollout, actor=actor, reason=reason)
        log.record(
            actor=actor, action="rollout.draft", reason=reason, after=outline(rollout), **place(rollout)
        )
    return rollout


def _unsaved(
    environment: Environment,
    workload: Workload,
    candidate: PolicyVersion,
    plan: PlanLike,
    reason: str,
    actor: Actor,
    scheduled_for: datetime | None,
) -> Rollout:
    if candidate.workload_id != workload.pk:
        raise InvalidInput(f"Version {candidate.number} does not belong to workload {workload.name}.")
    name, stages = copied(plan)
    before = Rollout.objects.filter(
        environment=environment, workload=workload, candidate__digest=candidate.digest
    ).order_by("created_at")
    pk = uuid7()
    return Rollout(
        pk=pk,
        environment=environment,
        workload=workload,
        candidate=candidate,
        plan_name=name,
        stages=stages,
        salt=before.values_list("salt", flat=True).first() or str(pk),
        reason=reason,
        proposer_label=actor.label,
        proposer_user_id=actor.user_id,
        contributors=[actor.user_id],
        scheduled_for=scheduled_for,
    )


def submit_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Submit a draft as a proposal."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.propose", actor=actor, reason=reason) as reason:
        return submit(rollout, actor=actor, reason=reason)


def submit(rollout: Rollout, *, actor: Actor, reason: str) -> Rollout:
    require(rollout, Event.PROPOSE, clock.now())
    changes = fixed_at_proposal(rollout, actor)
    evidence = outline(rollout) | _fixed(changes)
    rollout = move(rollout, Event.PROPOSE, actor=actor, reason=reason, changes=changes, evidence=evidence)
    return _approve_where_one_is_enough(rollout)


def _approve_where_one_is_enough(rollout: Rollout) -> Rollout:
    if rollout.four_eyes:
        return rollout
    reason = f"{rollout.environment.name} does not require an approval for rollouts."
    return move(rollout, Event.APPROVE, actor=SYSTEM, reason=reason)


def amend_rollout(
    rollout: Rollout | UUID | str,
    *,
    actor: Actor,
    reason: str,
    plan: PlanLike | None = None,
    scheduled_for: datetime | None = None,
) -> Rollout:
    """Change a rollout that has not started: its plan (None keeps it) and its time. Update its baseline to what is
    served.

    The person who amends becomes the proposer, and earlier approvals become void.
    """
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.amend", actor=actor, reason=reason) as reason:
        require(rollout, Event.AMEND, clock.now())
        name, stages = (rollout.plan_name, rollout.stages) if plan is None else copied(plan)
        baseline = served_assignment(rollout.environment_id, rollout.workload_id).baseline
        changes = {
            "plan_name": name,
            "stages": stages,
            "baseline": baseline,
            "scheduled_for": scheduled_for,
            "proposer_label": actor.label,
            "proposer_user_id": actor.user_id,
            **fixed_at_proposal(rollout, actor),
        }
        evidence = {"before": outline(rollout), **_amended_outline(rollout, changes), **_fixed(changes)}
        rollout = move(rollout, Event.AMEND, actor=actor, reason=reason, changes=changes, evidence=evidence)
        return _approve_where_one_is_enough(rollout)


def cancel_rollout(rollout: Rollout | UUID | str, *, actor: Actor, reason: str) -> Rollout:
    """Cancel a rollout that has not started."""
    rollout = loaded(rollout)
    with audited_transaction(rollout, "rollout.cancel", actor=actor, reason=reason) as reason:
        return move(rollout, Event.CANCEL, actor=actor, reason=reason)


def copied(plan: PlanLike) -> tuple[str, list[dict[str, Any]]]:
    """Return (name, checked stages) of a saved plan, of a plan's name, or of a list of stages."""
    if isinstance(plan, str):
        found = Plan.objects.filter(name=plan).first()
        if found is None:
            saved = ", ".join(Plan.objects.values_list("name", flat=True))
            others = f"The saved plans are {saved}." if saved else "No plans are saved."
            raise NotFound(f"There is no plan called {plan!r}. {others}")
        plan = found
    if isinstance(plan, Plan):
        return plan.name, plans.check(plan.stages)
    return "custom", plans.check(plan)


def _fixed(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: changes[name] for name in ("guardrails", "terms", "four_eyes")}


_NEVER_AMENDED = {"candidate", "candidate_digest", "salt", "state"}


def _amended_outline(rollout: Rollout, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details of the proposal that an amendment may change, as they are after it."""
    amended = copy.copy(rollout)
    for name, value in changes.items():
        setattr(amended, name, value)
    return {name: value for name, value in outline(amended).items() if name not in _NEVER_AMENDED}


def outline(rollout: Rollout) -> dict[str, Any]:
    """Return the details of a proposal that the audit log records."""
    return {
        "baseline": rollout.baseline.number,
        "candidate": rollout.candidate.number,
        "candidate_digest": rollout.candidate.digest,
        "plan": rollout.plan_name,
        "stages": rollout.stages,
        "scheduled_for": rollout.scheduled_for,
        "salt": rollout.salt,
        "proposer_label": rollout.proposer_label,
        "proposer_user_id": rollout.proposer_user_id,
        "state": State(rollout.state).value,
    }
