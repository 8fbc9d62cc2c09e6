"""Changes outside rollouts that need a second person: serving a first version, turning four eyes off, and granting a
role that can approve (requested in `controlplane.access.actions.second_person`).

If an environment requires four eyes, only these and an approved rollout put a version on its traffic. The exception is
break-glass: one person, a reason, and a separate kind of log entry.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import QuerySet

from controlplane.access import actions as access
from controlplane.access import change_requests, permissions
from controlplane.access.models import GRANT, ChangeRequest, Role
from controlplane.access.permissions import Principal
from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, ApprovalStale, Conflict, NotFound
from policies_app import actions
from policies_app.catalogue.usage import refuse_disabled_models
from policies_app.models import Assignment, Environment, PolicyVersion

SERVE, FOUR_EYES_OFF = "assignment.serve_first", "environment.four_eyes_off"


def request_serving(
    environment: Environment, version: PolicyVersion, *, actor: Actor, reason: str
) -> ChangeRequest:
    """Request serving a first version (or one after a stop) in an environment with four eyes."""
    workload = version.workload
    place = {"environment": environment.name, "workload": workload.name}
    target = ("assignment", f"{environment.name}/{workload.name}")
    with log.attempt(actor=actor, action=SERVE, target=target, reason=reason, **place):
        if Assignment.objects.filter(environment=environment, workload=workload).exists():
            raise AlreadyExists(
                f"{environment.name} already serves {workload.name}; propose a rollout to move it to "
                f"version {version.number}."
            )
        refuse_disabled_models(version)
        return change_requests.ask(
            SERVE,
            called=f"Serving a version of {workload.name} in {environment.name}",
            subject={"version": version.number, "digest": version.digest},
            contributors=[version.author_user_id],
            actor=actor,
            reason=reason,
            **place,
        )


def request_four_eyes_off(environment: Environment, *, actor: Actor, reason: str) -> ChangeRequest:
    """Request that an environment accept rollouts without a second person from then on."""
    if not environment.four_eyes:
        raise Conflict(f"{environment.name} already requires no second person.")
    return change_requests.ask(
        FOUR_EYES_OFF,
        called=f"Switching four eyes off in {environment.name}",
        environment=environment.name,
        subject={"four_eyes": False},
        contributors=[],
        actor=actor,
        reason=reason,
    )


def approve_change(
    request: ChangeRequest, *, actor: Actor, reason: str, expected_binding: str
) -> ChangeRequest:
    """Approve exactly what `expected_binding` names. The last approval needed applies the change at once."""
    place = change_requests.place(request)
    with log.attempt(actor=actor, action="change.approve", reason=reason, **place):
        request = change_requests.locked(request)
        if change_requests.agree(request, actor=actor, reason=reason, expected_binding=expected_binding):
            _refuse_lost_right(request)
            _APPLY[request.action](request, actor, reason)
    return request


def _refuse_lost_right(request: ChangeRequest) -> None:
    """Raise `ApprovalStale` if the requester may no longer do this. Otherwise a request left behind by somebody who was
    dismissed would still take effect.

    A key without a person is not known here; two people must have approved instead."""
    requester = request.contributors[-1]
    if requester is None:
        return
    role = _ROLE_FOR[request.action]
    if not permissions.has_role(Actor("user", requester, "", requester), role, request.environment):
        raise ApprovalStale(
            f"{request.requested_by}, who requested this, may no longer do it: reject it, and let somebody with the "
            f"role {role.value} request it."
        )


def _serve(request: ChangeRequest, actor: Actor, reason: str) -> None:
    environment = Environment.objects.get(name=request.environment)
    version = PolicyVersion.objects.select_related("workload").get(
        workload__name=request.workload, number=request.subject["version"]
    )
    actions.serve_first(
        environment, version, actor=actor, reason=reason, approvals=request.approvals, **_evidence(request)
    )


def _switch_off(request: ChangeRequest, actor: Actor, reason: str) -> None:
    environment = Environment.objects.get(name=request.environment)
    actions.edit_environment(
        environment,
        actor=actor,
        reason=reason,
        approvals=request.approvals,
        four_eyes=False,
        **_evidence(request),
    )


def _evidence(request: ChangeRequest) -> dict[str, Any]:
    return {"evidence": change_requests.as_evidence(request)}


def _grant(request: ChangeRequest, actor: Actor, reason: str) -> None:
    user = User.objects.get(pk=request.subject["user_id"])
    access.grant_role(
        user,
        request.subject["role"],
        request.environment,
        actor=actor,
        reason=reason,
        approvals=request.approvals,
        **_evidence(request),
    )


_ROLE_FOR = {SERVE: Role.OPERATOR, FOUR_EYES_OFF: Role.ADMIN, GRANT: Role.ADMIN}
_APPLY: dict[str, Callable[[ChangeRequest, Actor, str], None]] = {
    SERVE: _serve,
    FOUR_EYES_OFF: _switch_off,
    GRANT: _grant,
}


# --- access ----------------------------------------------------------------------------------------


def change_requests_for(principal: Principal) -> QuerySet[ChangeRequest]:
    """Return the requests of environments that the caller may see."""
    names = permissions.visible_environments(principal)
    rows = ChangeRequest.objects.all()
    return rows if names is None else rows.filter(environment__in=names)


def change_request_for(principal: Principal, pk: UUID, *, role: Role = Role.VIEWER) -> ChangeRequest:
    request = change_requests_for(principal).filter(pk=pk).first()
    if request is None:
        raise NotFound(f"There is no change request {pk}, or you may not see it.")
    permissions.require_role(principal, role, request.environment, workload=request.workload or None)
    return request
