"""Giving somebody the right to approve takes a second person, where four eyes are asked.

Whoever could make approvers alone could make one of their own: a second account, and a yes from it. So an approver or
an admin more is agreed to by an approver, or it is break-glass. The first ones are given by one person: as long as
nobody else there could agree, and nobody who could was ever taken away.
"""

import json

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from controlplane.access import change_requests
from controlplane.access.actions.places import asks_for_four_eyes
from controlplane.access.models import ChangeRequest, Membership, Role
from controlplane.audit.models import Entry
from controlplane.core import reasons
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists, ApprovalMissing, Conflict

GRANT = "membership.grant"
APPROVING = (Role.APPROVER.value, Role.ADMIN.value)  # the roles that can agree


def takes_two(role: str, environment: str, *, actor: Actor) -> bool:
    """Whether this person may not give this role alone."""
    if role not in APPROVING or actor.kind == SYSTEM.kind or not asks_for_four_eyes(environment):
        return False
    return _others_who_approve(environment, actor).exists() or _one_was_taken_away(environment)


def refuse_alone(role: str, environment: str, *, actor: Actor) -> None:
    if takes_two(role, environment, actor=actor):
        raise ApprovalMissing(
            f"Four eyes are asked in {environment or 'some environments'}: to make somebody {role} there takes a "
            "second person. Ask for it (membership-requests), or break the glass."
        )


def request_role(user: User, role: str, environment: str, *, actor: Actor, reason: str) -> ChangeRequest:
    """Ask for a role that takes two. Neither who asks nor who would get it can agree."""
    reasons.demand(actor, reason, f"This asks for a role for {user.get_username()}")
    if not takes_two(role, environment, actor=actor):
        raise Conflict("One person may give this role: give it.")
    if Membership.objects.filter(user=user, role=role, environment=environment).exists():
        raise AlreadyExists(
            f"{user.get_username()} is {role} in {environment or 'every environment'} already."
        )
    return change_requests.ask(
        GRANT,
        environment=environment,
        subject={"user": user.get_username(), "user_id": str(user.pk), "role": role},
        contributors=[str(user.pk)],
        actor=actor,
        reason=reason,
    )


def _others_who_approve(environment: str, actor: Actor) -> QuerySet[User]:
    """Also who is deactivated: to deactivate the others is no way to be alone."""
    held = Membership.objects.filter(role__in=APPROVING)
    if environment:
        held = held.filter(environment__in=["", environment])
    others = User.objects.filter(Q(is_superuser=True) | Q(pk__in=held.values("user_id")))
    return others if actor.user_id is None else others.exclude(pk=int(actor.user_id))


def _one_was_taken_away(environment: str) -> bool:
    """Else whoever is alone could first take the others' roles, and then make an approver of their own."""
    ended = Entry.objects.filter(action="membership.withdraw", outcome="done")
    if environment:
        ended = ended.filter(environment__in=["", environment])
    for body in ended.values_list("body", flat=True).iterator():
        for change in json.loads(bytes(body))["diff"]:
            if change["path"] == "/role" and change.get("before") in APPROVING:
                return True
    return False
