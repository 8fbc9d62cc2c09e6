"""Writes to what is served now: first versions, moves, pins. Each change draws the environment's next revision."""

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import (
    AlreadyExists,
    ApprovalMissing,
    Conflict,
    InvalidInput,
    RolloutActive,
    StaleVersion,
)
from policies_app.catalogue.usage import refuse_disabled_models
from policies_app.models import Assignment, Environment, PolicyVersion, Workload
from policies_app.snapshots import build
from policies_app.snapshots.revisions import draw_revision, prices_of, save_assignment, served_assignment


def serve_first(
    environment: Environment,
    version: PolicyVersion,
    *,
    actor: Actor,
    reason: str,
    approvals: Any = None,
    break_glass: bool = False,
    evidence: Any = None,
) -> Assignment:
    """Start serving a workload in an environment. Every later version requires a rollout.

    If the environment requires four eyes, this needs another person's approval (`change_requests`) or break-glass, also
    after a stop: otherwise stop and serve would put any version on traffic.
    """
    subject = _audit_subject(environment, version.workload)
    with log.attempt(actor=actor, action="assignment.serve_first", reason=reason, **subject):
        # Locked before the environment, as in `edit_workload`: an edit of the unit does not see an assignment that is
        # not committed, and so would not publish it.
        workload = version.workload = Workload.objects.select_for_update(no_key=True).get(
            pk=version.workload_id
        )
        revision = draw_revision(environment.pk, workload.pk, "assignment.serve_first")
        if Assignment.objects.filter(environment=environment, workload=workload).exists():
            raise AlreadyExists(
                f"{environment.name} already serves {workload.name}; propose a rollout to move it to "
                f"version {version.number}."
            )
        guarded = _require_second_person(environment, version, approvals, break_glass)
        refuse_disabled_models(version)  # break-glass replaces the second person only
        assignment = Assignment(
            environment=environment,
            workload=workload,
            baseline=version,
            revision=revision,
            changed_at=clock.now(),
        )
        assignment.fragment, assignment.prices = build.fragment(assignment), prices_of(assignment)
        assignment.save(force_insert=True)
        log.record(
            actor=actor,
            action="assignment.break_glass" if guarded and not approvals else "assignment.serve_first",
            reason=reason,
            after=_audited_values(assignment),
            approvals=approvals,
            evidence=evidence,
            **subject,
        )
    return assignment


def _require_second_person(
    environment: Environment, version: PolicyVersion, approvals: Any, break_glass: bool
) -> bool:
    """Return whether the environment requires four eyes. Raises `ApprovalMissing` without an approval or break-glass.

    The environment's row is locked, so the setting cannot change in between.
    """
    guarded = Environment.objects.values_list("four_eyes", flat=True).get(pk=environment.pk)
    if guarded and not (approvals or break_glass):
        raise ApprovalMissing(
            f"{environment.name} requires four eyes: another person must approve that version {version.number} of "
            f"{version.workload.name} is served. Request an approval, or use break-glass."
        )
    return guarded


def stop_serving(assignment: Assignment, *, actor: Actor, reason: str) -> None:
    """Stop serving a workload in an environment. Routers then answer its tasks with their own default."""
    subject = _audit_subject(assignment.environment, assignment.workload)
    with log.attempt(actor=actor, action="assignment.stop_serving", reason=reason, **subject):
        draw_revision(
            assignment.environment_id, assignment.workload_id, "assignment.stop_serving", removed=True
        )
        assignment = served_assignment(assignment.environment_id, assignment.workload_id)
        if assignment.rollout:
            raise RolloutActive(
                f"A rollout of {assignment.workload.name} is under way in {assignment.environment.name}; "
                "roll it back first."
            )
        before = _audited_values(assignment)
        assignment.delete()
        log.record(actor=actor, action="assignment.stop_serving", reason=reason, before=before, **subject)


def set_assignment(
    environment_id: int,
    workload_id: int,
    *,
    baseline: PolicyVersion,
    candidate: PolicyVersion | None = None,
    rollout: UUID | None = None,
    stage: int | None = None,
    mode: str = "",
    share_pcm: int = 0,
    mirror_pcm: int = 0,
    salt: str = "",
    cost_cap_nusd: int | None = None,
    replaces: PolicyVersion | None = None,
    cause: str,
) -> int:
    """Move an assignment inside the caller's transaction, and return the new revision.

    `replaces` is the version that must be served now (None: any). Another rollout may have completed after the caller
    checked. The caller (`rollout_app.actions`) writes the audit entry, because the move is part of its transition.
    Raises `NotServed` if the environment serves nothing for the workload yet.
    """
    revision = draw_revision(environment_id, workload_id, cause)
    assignment = served_assignment(environment_id, workload_id)
    if replaces is not None and assignment.baseline_id != replaces.pk:
        raise Conflict(
            f"{assignment.environment.name} now serves version {assignment.baseline.number} of "
            f"{assignment.workload.name}, no longer version {replaces.number}; read the rollout again."
        )
    assignment.baseline, assignment.candidate = baseline, candidate
    assignment.rollout, assignment.stage, assignment.mode = rollout, stage, mode
    assignment.share_pcm, assignment.mirror_pcm, assignment.salt = share_pcm, mirror_pcm, salt
    assignment.cost_cap_nusd = cost_cap_nusd
    save_assignment(assignment, revision)
    return revision


def pin(assignment: Assignment, model_alias: str, *, actor: Actor, reason: str) -> Assignment:
    """Pin a workload to one model, at once and without approval (the emergency switch).

    `model_alias` is a name under `models` in the served baseline, the one document that every router has.
    """
    return _set_pin(assignment, model_alias, reason, action="assignment.pin", actor=actor)


def unpin(assignment: Assignment, *, actor: Actor, reason: str, expected: str = "") -> Assignment:
    """End the pin, so that tasks follow the policy again. Raises `Conflict` if nothing is pinned, and `StaleVersion` if
    it is no longer the `expected` pin (its `pin_tag`; empty: any): somebody pinned it again since, for another reason.
    """
    return _set_pin(assignment, "", reason, action="assignment.unpin", actor=actor, expected=expected)


def pin_tag(assignment: Assignment) -> str:
    """Identify a pin by its model and reason, for `unpin`."""
    return hashlib.sha256(f"{assignment.pin_model}: {assignment.pin_reason}".encode()).hexdigest()


def _set_pin(
    assignment: Assignment, model: str, reason: str, *, action: str, actor: Actor, expected: str = ""
) -> Assignment:
    subject = _audit_subject(assignment.environment, assignment.workload)
    with log.attempt(actor=actor, action=action, reason=reason, **subject):
        revision = draw_revision(assignment.environment_id, assignment.workload_id, action)
        assignment = served_assignment(assignment.environment_id, assignment.workload_id)
        _refuse_pin(assignment, model)
        if expected and pin_tag(assignment) != expected:
            pinned = f"{assignment.pin_model}: {assignment.pin_reason}"
            raise StaleVersion(f"Somebody has pinned it again since, to {pinned}")
        before = _audited_values(assignment)
        assignment.pin_model, assignment.pin_reason = model, reason if model else ""
        save_assignment(assignment, revision)
        log.record(
            actor=actor,
            action=action,
            reason=reason,
            before=before,
            after=_audited_values(assignment),
            **subject,
        )
    return assignment


def _refuse_pin(assignment: Assignment, model: str) -> None:
    """Check the locked row: its baseline or pin may have changed since the caller read it."""
    aliases = sorted(assignment.baseline.document["models"])
    if model and model not in aliases:
        raise InvalidInput(f"{model!r} is not a model of the served policy; it has {', '.join(aliases)}.")
    if not model and not assignment.pin_model:
        raise Conflict(f"{assignment.workload.name} is not pinned in {assignment.environment.name}.")


def republish_unit(workload: Workload) -> None:
    """Publish a workload's changed unit, which is part of what routers receive."""
    for environment_id in workload.assignments.values_list("environment_id", flat=True).order_by(
        "environment_id"
    ):
        revision = draw_revision(environment_id, workload.pk, "workload.edit")
        assignment = served_assignment(environment_id, workload.pk)
        if assignment.rollout:
            raise _under_way(assignment, ["unit"])
        save_assignment(assignment, revision)


def refuse_under_way(workload: Workload, names: Sequence[str]) -> None:
    """Raise `RolloutActive` while a rollout is judged by these settings: changing them would change the comparison."""
    for assignment in workload.assignments.select_related("environment", "workload").exclude(rollout=None):
        raise _under_way(assignment, names)


def _under_way(assignment: Assignment, names: Sequence[str]) -> RolloutActive:
    return RolloutActive(
        f"A rollout of {assignment.workload.name} is under way in {assignment.environment.name}: "
        f"{', '.join(names)} cannot change until it ends."
    )


def _audited_values(assignment: Assignment) -> dict[str, Any]:
    """Return an assignment's values for the audit log: versions by number, not whole documents."""
    return {
        "baseline": assignment.baseline.number,
        "candidate": assignment.candidate and assignment.candidate.number,
        "mode": assignment.mode,
        "share_pcm": assignment.share_pcm,
        "pin": assignment.pin_model,
        "revision": assignment.revision,
    }


def _audit_subject(environment: Environment, workload: Workload) -> dict[str, Any]:
    """Return the target, environment and workload of an assignment's audit entries."""
    return {
        "target": ("assignment", f"{environment.name}/{workload.name}"),
        "environment": environment.name,
        "workload": workload.name,
    }
