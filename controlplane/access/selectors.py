"""Queries for people and invitations, limited to what the caller may see and manage."""

from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet

from controlplane.access import permissions
from controlplane.access.models import Invitation, Membership, Role
from controlplane.access.permissions import ANYWHERE, Principal
from controlplane.core.errors import NotFound


def environments_administered_by(principal: Principal) -> set[str] | None:
    """Return the names of the environments administered; None means all."""
    if permissions.has_role(principal, Role.ADMIN, ""):
        return None
    names = permissions.visible_environments(principal) or set()
    return {name for name in names if permissions.has_role(principal, Role.ADMIN, name)}


def people_for(principal: Principal) -> QuerySet[User]:
    """Return all accounts, with their roles in the environments that the caller administers (at least one)."""
    permissions.require_role(principal, Role.ADMIN, ANYWHERE)
    names = environments_administered_by(principal)
    roles = Membership.objects.order_by("environment", "role")
    if names is not None:
        roles = roles.filter(environment__in=names)
    return User.objects.prefetch_related(
        Prefetch("memberships", queryset=roles), "pointsman_teams", "authenticator_set"
    ).order_by("username")


def person_for(principal: Principal, pk: int) -> User:
    found = people_for(principal).filter(pk=pk).first() if pk < 2**31 else None
    if found is None:
        raise NotFound("There is no such person, or you may not manage them.")
    return found


def invitations_for(principal: Principal) -> QuerySet[Invitation]:
    """Return the invitations that grant nothing beyond the environments that the caller administers."""
    permissions.require_role(principal, Role.ADMIN, ANYWHERE)
    rows = Invitation.objects.select_related("accepted_by")
    names = environments_administered_by(principal)
    if names is None:
        return rows
    own = [
        invitation.pk
        for invitation in rows
        if not invitation.teams and all(role["environment"] in names for role in invitation.roles)
    ]
    return rows.filter(pk__in=own)


def invitation_for(principal: Principal, pk: UUID) -> Invitation:
    found = invitations_for(principal).filter(pk=pk).first()
    if found is None:
        raise NotFound("There is no such invitation, or you may not manage it.")
    return found
