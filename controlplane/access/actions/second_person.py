"""Granting the right to approve requires a second person if four eyes are required.

Somebody who could create approvers alone could create one of their own: a second account that approves. Making somebody
an approver or admin therefore needs an approver's approval, or break-glass. One person may grant the first ones, while
nobody else there could approve and no approver has ever been removed.
"""

import json

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from controlplane.access import change_requests
from controlplane.access.actions.places import asks_for_four_eyes
from controlplane.access.models import GRANT, ChangeRequest, Membership, Role
from controlplane.audit.models import Entry
from controlplane.core import reasons
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists, ApprovalMissing, Conflict

APPROVING = (Role.APPROVER.value, Role.ADMIN.value)  # the roles that can approve


def takes_two(role: str, environment: str, *, actor: Actor) -> bool:
    """Return whether this person may not grant this role alone."""
    if role not in APPROVING or actor.kind == SYSTEM.kind or not asks_for_four_eyes(environment):
        return False
    return _other_approvers(environment, actor).exists() or _an_approver_was_removed(environment)


def refuse_alone(role: str, environment: str, *, actor: Actor) -> None:
    if takes_two(role, environment, actor=actor):
        raise ApprovalMissing(
            f"Four eyes are required in {environment or 'some environments'}: making somebody {role} there needs a "
            "second person. Request it (membership-requests), or use break-glass."
        )


def request_role(user: User, role: str, environment: str, *, actor: Actor, reason: str) -> ChangeRequest:
    """Request a role that needs a second person. Neither the requester nor the recipient can approve it."""
    reasons.demand(actor, reason, f"This requests a role for {user.get_username()}")
    if not takes_two(role, environment, actor=actor):
        raise Conflict("One person may grant this role: grant it directly.")
    place = environment or "every environment"
    if Membership.objects.filter(user=user, role=role, environment=environment).exists():
        raise AlreadyExists(f"{user.get_username()} is already {role} in {place}.")
    return change_requests.ask(
        GRANT,
        called=f"The role {role} for {user.get_username()} in {place}",
        environment=environment,
        subject={"user": user.get_username(), "user_id": str(user.pk), "role": role},
        contributors=[str(user.pk)],
        actor=actor,
        reason=reason,
    )


def _other_approvers(environment: str, actor: Actor) -> QuerySet[User]:
    """Return the other approvers, including deactivated ones: deactivating them must not leave one person alone."""
    held = Membership.objects.filter(role__in=APPROVING)
    if environment:
        held = held.filter(environment__in=["", environment])
    others = User.objects.filter(Q(is_superuser=True) | Q(pk__in=held.values("user_id")))
    return others if actor.user_id is None else others.exclude(pk=int(actor.user_id))


def _an_approver_was_removed(environment: str) -> bool:
    """Return whether an approver was ever removed. Without this, one person could remove the other approvers and then
    create an approver alone. A superuser approves everywhere."""
    if Entry.objects.filter(action="user.withdraw_superuser", outcome="done").exists():
        return True
    ended = Entry.objects.filter(action="membership.withdraw", outcome="done")
    if environment:
        ended = ended.filter(environment__in=["", environment])
    for body in ended.values_list("body", flat=True).iterator():
        for change in json.loads(bytes(body))["diff"]:
            if change["path"] == "/role" and change.get("before") in APPROVING:
                return True
    return False
