"""Permission checks. They query the database each time, so a withdrawn role is lost at once."""

from collections.abc import Callable, Iterable

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, AbstractUser, AnonymousUser
from django.db.models import Q

from controlplane.access.models import Key, Membership, Role, Team
from controlplane.core.actors import Actor
from controlplane.core.errors import Forbidden, KeyLimited, RoleMissing

Principal = Actor | AbstractBaseUser | AnonymousUser | Key
ANYWHERE = None  # instead of an environment: the role in any one is enough


def has_role(
    principal: Principal, role: Role | str, environment: str | None, *, workload: str | None = None
) -> bool:
    """Return whether the principal holds the role in the environment, directly or as an admin of it.

    Every role includes `viewer`, and `admin` includes all; no other role includes another. `""` means the role in every
    environment, `ANYWHERE` in any. A key has the roles of its scopes that its person holds at this moment. A key
    limited to some workloads holds a role (other than viewer) only if `workload` names one of them: it has no rights
    where no workload is named, or all are meant.
    """
    wanted = _roles_that_include(role)
    match principal:
        case Actor(kind="system"):
            return True
        case Actor(kind="key"):
            key = Key.objects.select_related("user").filter(key_id=principal.id).first()
            return key is not None and has_role(key, role, environment, workload=workload)
        case Actor(kind="user"):
            return _person_id_holds(principal.id, wanted, environment)
        case Key():
            return _key_holds(principal, wanted, role, environment, workload)
        case AbstractUser() if principal.pk is not None:
            return _person_holds(principal, wanted, environment)
    return False


def roles_held(person: AbstractUser) -> Callable[[Role | str, str | None], bool]:
    """Return a `has_role` for this person as of now. It makes one query, for pages with many environments."""
    if not person.is_active or person.is_superuser:
        return lambda role, environment: bool(person.is_active)
    held = set(Membership.objects.filter(user_id=person.pk).values_list("environment", "role"))

    def holds(role: Role | str, environment: str | None) -> bool:
        wanted, places = _roles_that_include(role), (environment, "")
        return any(r in wanted and (environment is ANYWHERE or e in places) for e, r in held)

    return holds


def holders(role: Role | str, user_ids: Iterable[str]) -> Callable[[str, str], bool]:
    """Return whether (a person's id, an environment) has the role, for all these people as of now, in one query."""
    people = get_user_model().objects.filter(pk__in=set(user_ids), is_active=True)
    rows = people.values_list("pk", "is_superuser", "memberships__role", "memberships__environment")
    wanted, everywhere = _roles_that_include(role), ""
    places = {
        (str(pk), everywhere if is_superuser else environment)
        for pk, is_superuser, held, environment in rows
        if is_superuser or held in wanted
    }

    def holds(user_id: str, environment: str) -> bool:
        return bool(places & {(user_id, environment), (user_id, everywhere)})

    return holds


def _roles_that_include(role: Role | str) -> set[str]:
    return set(Role.values) if role == Role.VIEWER else {str(role), Role.ADMIN.value}


def require_role(
    principal: Principal, role: Role | str, environment: str | None, *, workload: str | None = None
) -> None:
    """Raise `RoleMissing`, naming the role and the environment."""
    if not has_role(principal, role, environment, workload=workload):
        if has_role(principal, role, environment, workload=_a_workload_of(principal)):
            raise KeyLimited(_limit(principal), role=Role(role).value, environment=environment or "")
        place = {ANYWHERE: "any environment", "": "every environment"}.get(environment, environment)
        raise RoleMissing(
            f"This needs the role {Role(role).value} in {place}; ask an admin of Pointsman to grant it.",
            role=Role(role).value,
            environment=environment or "",
        )


def may_edit_workload(principal: Principal, owner: Team, workload: str = "") -> bool:
    """Return whether this is an editor on the owning team, or an admin of every environment.

    A key without a person is on no team: it may edit the workloads that it was issued for.
    """
    if has_role(principal, Role.ADMIN, "", workload=workload):
        return True
    if not has_role(principal, Role.EDITOR, ANYWHERE, workload=workload):
        return False
    person = person_behind(principal)
    if person is None:
        key = _key_of(principal)
        return key is not None and workload in key.workloads
    return owner.members.filter(pk=person).exists()


def require_workload_editor(principal: Principal, owner: Team, workload: str) -> None:
    """Raise `Forbidden` naming the team that may edit the workload."""
    if not may_edit_workload(principal, owner, workload):
        raise Forbidden(
            f"{workload} belongs to the team {owner.name}: only its editors may change it.", team=owner.name
        )


def visible_environments(principal: Principal) -> set[str] | None:
    """Return the names of the environments that the principal may see; None means all."""
    if has_role(principal, Role.VIEWER, ""):
        return None
    key = _key_of(principal)
    if key is not None and (key.user_id is None or key.environment):
        return {key.environment} if has_role(key, Role.VIEWER, key.environment) else set()
    person = person_behind(principal)
    if person is None:
        return set()
    return set(Membership.objects.filter(user_id=person).values_list("environment", flat=True))


def person_behind(principal: Principal) -> str | int | None:
    """Return the id of the person, or of the one that a key acts for; None for nobody."""
    key = _key_of(principal)
    return key.user_id if key is not None else _person_id(principal)


def _person_id_holds(user_id: str, wanted: set[str], environment: str | None) -> bool:
    person = get_user_model().objects.filter(pk=user_id).first()
    return person is not None and _person_holds(person, wanted, environment)


def _person_holds(person: AbstractUser, wanted: set[str], environment: str | None) -> bool:
    if not person.is_active:
        return False
    if person.is_superuser:
        return True
    held = Membership.objects.filter(user_id=person.pk, role__in=wanted)
    if environment is not ANYWHERE:
        held = held.filter(Q(environment="") | Q(environment=environment))
    return held.exists()


def _key_holds(
    key: Key, wanted: set[str], role: Role | str, environment: str | None, workload: str | None
) -> bool:
    if key.kind != Key.Kind.ADMIN or not wanted & key.roles:
        return False
    if key.workloads and role != Role.VIEWER and workload not in key.workloads:
        return False
    if environment is ANYWHERE:
        environment = key.environment or ANYWHERE
    elif key.environment not in ("", environment):
        return False
    return key.user_id is None or has_role(Actor("user", str(key.user_id), ""), role, environment)


def _a_workload_of(principal: Principal) -> str | None:
    """Return one of the workloads that a key is limited to; None for other keys, and for people."""
    key = _key_of(principal)
    return key.workloads[0] if key is not None and key.workloads else None


def _limit(principal: Principal) -> str:
    key = _key_of(principal)
    names = ", ".join(key.workloads) if key is not None else ""
    return f"This key is limited to {names}. It cannot be used for other workloads, or where no workload is named."


def _key_of(principal: Principal) -> Key | None:
    if isinstance(principal, Key):
        return principal
    if isinstance(principal, Actor) and principal.kind == "key":
        return Key.objects.filter(key_id=principal.id).first()
    return None


def _person_id(principal: Principal) -> str | None:
    if isinstance(principal, Actor):
        return principal.user_id
    pk = getattr(principal, "pk", None)
    return None if pk is None else str(pk)
