"""Writes to teams and roles."""

from collections.abc import Collection, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q

from controlplane.access.actions.admins import hold_admins, keep_an_admin
from controlplane.access.actions.names import is_slug
from controlplane.access.actions.second_person import refuse_alone, takes_two
from controlplane.access.models import GRANT, Membership, Role, Team
from controlplane.audit import log
from controlplane.core import reasons
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists, InvalidInput, NotFound


def grant_role(
    user: User,
    role: str,
    environment: str,
    *,
    actor: Actor,
    reason: str = "",
    approvals: Any = None,
    evidence: Any = None,
    break_glass: bool = False,
) -> Membership:
    """Grant a role in one environment, or (`""`) in every one. Granting it twice is a 409.

    A role that can approve needs a second person if four eyes are required (`second_person`). `approvals` holds the
    approvals of such a person.
    """
    if role not in Role.values:
        raise InvalidInput(f"{role!r} is not a role; there are {', '.join(Role.values)}.")
    if environment and not is_slug(environment):
        raise InvalidInput(f"{environment!r} is not an environment's name.")
    reasons.demand(actor, reason, f"This gives {user.get_username()} a role")
    target = ("user", str(user.pk))
    with log.attempt(actor=actor, action=GRANT, target=target, environment=environment, reason=reason):
        alone = not approvals and takes_two(role, environment, actor=actor)
        if alone and not break_glass:
            refuse_alone(role, environment, actor=actor)
        membership, is_new = Membership.objects.get_or_create(user=user, role=role, environment=environment)
        if not is_new:
            raise AlreadyExists(
                f"{user.get_username()} is already {role} in {environment or 'every environment'}."
            )
        record_role(
            membership,
            action="membership.break_glass" if alone else GRANT,
            actor=actor,
            reason=reason,
            approvals=approvals,
            evidence=evidence,
        )
    return membership


def record_role(
    membership: Membership, *, actor: Actor, reason: str, action: str = GRANT, **kept: Any
) -> None:
    """Append the entry of a role that was inserted in this transaction. `kept` holds further parts of the entry."""
    log.record(
        actor=actor,
        action=action,
        target=("user", str(membership.user_id)),
        environment=membership.environment,
        reason=reason,
        after=_membership_fields(membership),
        **kept,
    )


def withdraw_role(membership: Membership, *, actor: Actor, reason: str = "") -> None:
    """Withdraw a role, effective with the next request. At least one admin of every environment must remain."""
    user_id = str(membership.user_id)
    with log.attempt(
        actor=actor,
        action="membership.withdraw",
        target=("user", user_id),
        environment=membership.environment,
        reason=reason,
    ):
        before = _membership_fields(membership)
        if (membership.role, membership.environment) == (Role.ADMIN, "") and actor.kind != SYSTEM.kind:
            hold_admins()
            keep_an_admin(User.objects.filter(Q(is_superuser=True) | ~Q(pk=membership.user_id)))
        if not Membership.objects.filter(pk=membership.pk).delete()[0]:
            raise NotFound("This membership has already ended.")
        log.record(
            actor=actor,
            action="membership.withdraw",
            target=("user", user_id),
            environment=membership.environment,
            reason=reason,
            before=before,
        )


def create_team(name: str, *, actor: Actor, members: Sequence[User] = (), reason: str = "") -> Team:
    if not is_slug(name) or len(name) > 64:
        raise InvalidInput("A team's name must have 1 to 64 letters, digits, hyphens and underscores.")
    with transaction.atomic():
        try:
            with transaction.atomic():
                team = Team.objects.create(name=name)
        except IntegrityError:
            raise AlreadyExists(f"There is already a team called {name!r}.") from None
        team.members.set(members)
        log.record(
            actor=actor, action="team.create", target=("team", name), reason=reason, after=team_fields(team)
        )
    return team


def set_team_members(
    team: Team,
    members: Sequence[User],
    *,
    actor: Actor,
    reason: str = "",
    seen: Collection[int] | None = None,
) -> Team:
    """Replace a team's members. People who are left out can no longer edit the team's workloads.

    `seen`: the keys of the members that were shown. Then only the difference is applied, so that a change by somebody
    else stays.
    """
    with transaction.atomic():
        team = Team.objects.select_for_update().get(pk=team.pk)
        before = team_fields(team)
        present = set(team.members.values_list("pk", flat=True))
        chosen = {member.pk for member in members}
        if seen is not None:
            chosen = (present | chosen - set(seen)) - (set(seen) - chosen)
        if chosen == present:
            return team
        team.members.set(chosen)
        log.record(
            actor=actor,
            action="team.set_members",
            target=("team", team.name),
            reason=reason,
            before=before,
            after=team_fields(team),
        )
    return team


def people(usernames: Sequence[str]) -> list[User]:
    """Return the users with these names. Raises `InvalidInput` naming those that do not exist."""
    found = list(get_user_model().objects.filter(username__in=usernames))
    if unknown := sorted(set(usernames) - {user.get_username() for user in found}):
        raise InvalidInput(f"Unknown users: {', '.join(unknown)}.")
    return found


def _membership_fields(membership: Membership) -> dict[str, Any]:
    return {
        "user": membership.user.get_username(),
        "role": membership.role,
        "environment": membership.environment,
    }


def team_fields(team: Team) -> dict[str, Any]:
    return {
        "name": team.name,
        "members": sorted(member.get_username() for member in team.members.all()),
    }
