"""Queries for people, invitations, keys and entries of the audit log, limited to what the caller may see and manage."""

from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Prefetch, Q, QuerySet

from controlplane.access import permissions
from controlplane.access.models import Invitation, Key, Membership, Role
from controlplane.access.permissions import ANYWHERE, Principal
from controlplane.audit.models import Entry
from controlplane.core.actors import Actor
from controlplane.core.errors import NotFound


def environments_administered_by(principal: Principal) -> set[str] | None:
    """Return the names of the environments administered; None means all."""
    if permissions.has_role(principal, Role.ADMIN, ""):
        return None
    names = permissions.visible_environments(principal)
    if names is None:  # a viewer of every environment may be an admin of some
        person = permissions.person_behind(principal)
        held = Membership.objects.none() if person is None else Membership.objects.filter(user_id=person)
        names = set(held.filter(role=Role.ADMIN).values_list("environment", flat=True))
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


def keys_managed_by(actor: Actor) -> QuerySet[Key]:
    """Return the keys of the environments that the actor administers, and a person's own. A key sees itself.

    A key limited to some workloads administers no environment, so it sees only itself.
    """
    keys = Key.objects.select_related("user")
    names = environments_administered_by(actor)
    if names is None:
        return keys
    own = Q(key_id=actor.id) if actor.kind == "key" else Q(user_id=actor.user_id)
    return keys.filter(Q(environment__in=names) | own)


# --- the audit log --------------------------------------------------------------------------------------


def entries_visible_to(actor: Actor, person: User | None = None) -> QuerySet[Entry]:
    """Return the entries of the environments that the actor may see, and those without an environment. `person`: the
    actor's account, if it was read already.

    Of the latter, somebody who does not see every environment gets none about what they may not list: receivers,
    invitations (which name other environments) and, unless they are an admin somewhere, accounts. What they did, what
    was done to them, and who got a role in every environment, they see.
    """
    principal = person or actor
    names = permissions.visible_environments(principal)
    if names is None:
        return Entry.objects.all()
    private = ["receiver", "invitation"]
    if not permissions.has_role(principal, Role.ADMIN, ANYWHERE):
        private.append("user")
    shared = ~Q(target_kind__in=private) | Q(action__startswith="membership.")
    shared |= Q(actor_kind=actor.kind, actor_id=actor.id)
    if actor.user_id is not None:
        shared |= Q(target_kind="user", target_id=actor.user_id)
    return Entry.objects.filter(Q(environment__in=names) | (Q(environment="") & shared))
