"""Changes that wait for a second person: request, approve, reject, withdraw. The caller applies them.

Each function runs inside the caller's transaction. The action that applies a change writes its audit entry, with the
approvals in it.
"""

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction

from controlplane.access import four_eyes
from controlplane.access.models import ChangeRequest
from controlplane.audit import chain, log
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, ApprovalStale, Conflict, Forbidden

WAITING = ChangeRequest.State.WAITING
_AUDITED = (
    "action", "environment", "workload", "subject", "reason", "requested_by", "contributors", "approvals", "state",
    "ended_by",
)  # fmt: skip


def binding(request: ChangeRequest) -> str:
    """Return the SHA-256 of what an approval covers."""
    return chain.digest(
        {
            "action": request.action,
            "environment": request.environment,
            "workload": request.workload,
            "subject": request.subject,
        }
    )


def place(request: ChangeRequest) -> dict[str, Any]:
    """Return the target, environment and workload of the request's audit entries."""
    return {
        "target": ("change_request", str(request.pk)),
        "environment": request.environment,
        "workload": request.workload,
    }


def ask(
    action: str,
    *,
    called: str,
    environment: str,
    workload: str = "",
    subject: Mapping[str, Any],
    contributors: four_eyes.Contributors,
    actor: Actor,
    reason: str,
) -> ChangeRequest:
    """Request a change. `contributors` are the authors of its content; the requester is added, or is the last already.

    `called` names the change in the refusal of a second request, which raises `AlreadyExists`.
    """
    request = ChangeRequest(
        action=action,
        environment=environment,
        workload=workload,
        subject=dict(subject),
        reason=reason,
        requested_by=actor.label,
        contributors=four_eyes.with_contributor(contributors, actor.user_id),
        created_at=clock.now(),
    )
    with log.attempt(actor=actor, action="change.request", reason=reason, **place(request)):
        try:
            with transaction.atomic():
                request.save(force_insert=True)
        except IntegrityError:
            raise AlreadyExists(
                f"{called} already waits for an approval: approve, reject or withdraw that request."
            ) from None
        log.record(
            actor=actor,
            action="change.request",
            reason=reason,
            after=request_fields(request),
            **place(request),
        )
    return request


def agree(request: ChangeRequest, *, actor: Actor, reason: str, expected_binding: str) -> bool:
    """Add this person's approval. Return True if it was the last one needed and the change must be applied now.

    Approvers who have lost their role in the meantime no longer count. The row must be locked (`locked`).
    """
    if expected_binding != binding(request):
        raise ApprovalStale("It has changed since you read it: read it again, then approve it.")
    _refuse_ended(request)
    agreed = [approval["user_id"] for approval in request.approvals]
    four_eyes.refuse_approver(actor, request.contributors, agreed)
    before = request_fields(request)
    given = {"user_id": actor.user_id, "label": actor.label, "reason": reason, "at": clock.now().isoformat()}
    request.approvals = [*request.approvals, given]
    counted = four_eyes.still_count([*agreed, str(actor.user_id)], request.contributors, request.environment)
    enough = len(counted) >= four_eyes.approvals_needed(request.contributors)
    if enough:
        request.state, request.ended_at, request.ended_by = (
            ChangeRequest.State.APPLIED,
            clock.now(),
            actor.label,
        )
    request.save(update_fields=["approvals", "state", "ended_at", "ended_by"])
    if not enough:
        log.record(
            actor=actor,
            action="change.approve",
            reason=reason,
            before=before,
            after=request_fields(request),
            evidence={"counted": len(counted), "needed": four_eyes.approvals_needed(request.contributors)},
            **place(request),
        )
    return enough


def reject(request: ChangeRequest, *, actor: Actor, reason: str) -> ChangeRequest:
    """Reject the request, which ends it."""
    return _end(request, ChangeRequest.State.REJECTED, "change.reject", actor=actor, reason=reason)


def withdraw(request: ChangeRequest, *, actor: Actor, reason: str) -> ChangeRequest:
    """Withdraw one's own request."""
    return _end(request, ChangeRequest.State.WITHDRAWN, "change.withdraw", actor=actor, reason=reason)


def _end(
    request: ChangeRequest, state: ChangeRequest.State, action: str, *, actor: Actor, reason: str
) -> ChangeRequest:
    with log.attempt(actor=actor, action=action, reason=reason, **place(request)):
        request = locked(request)
        _refuse_ended(request)
        if state == ChangeRequest.State.WITHDRAWN and actor.user_id not in request.contributors:
            raise Forbidden(f"Only {request.requested_by} can withdraw it; an approver can reject it.")
        before = request_fields(request)
        request.state, request.ended_at, request.ended_by = state, clock.now(), actor.label
        request.save(update_fields=["state", "ended_at", "ended_by"])
        log.record(
            actor=actor,
            action=action,
            reason=reason,
            before=before,
            after=request_fields(request),
            **place(request),
        )
    return request


def locked(request: ChangeRequest) -> ChangeRequest:
    """Return the current request, locked until the transaction ends."""
    return ChangeRequest.objects.select_for_update().get(pk=request.pk)


def _refuse_ended(request: ChangeRequest) -> None:
    if request.state != WAITING:
        raise Conflict(f"This request has ended: it was {request.state} by {request.ended_by}.")


def request_fields(request: ChangeRequest) -> dict[str, Any]:
    """Return a request's fields for the audit log."""
    return {name: getattr(request, name) for name in _AUDITED}


def as_evidence(request: ChangeRequest) -> dict[str, Any]:
    """Return who requested the change and why, for the audit entry of the applied change."""
    return {
        "change_request": str(request.pk),
        "requested_by": request.requested_by,
        "reason": request.reason,
        "binding": binding(request),
    }
