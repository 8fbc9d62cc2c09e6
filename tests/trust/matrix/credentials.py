"""Every kind of caller: anonymous, routers, keys of each scope and place, people of each role and place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions
from controlplane.access.models import Key, Membership, Team
from controlplane.core import clock
from controlplane.core.actors import SYSTEM

EVERY_ROLE = frozenset({"viewer", "editor", "approver", "operator", "admin"})
AGENT_ROLES = frozenset({"viewer", "editor", "operator"})
PLACE = "production"  # the environment of the world's rollouts
EVERYWHERE = ""


@dataclass(frozen=True)
class Credential:
    """`roles` by environment (`""`: every one): what the caller holds, after all limits."""

    name: str
    kind: str  # none, router, key, session
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_live: bool = True
    is_person: bool = True  # belongs to a person
    on_team: bool = False
    workloads: frozenset[str] = frozenset()  # the key's limits; empty: none
    is_agent: bool = False  # the key has the scope `agent`

    def holds(self, role: str, place: str, about: str = "") -> bool:
        """Return whether the role holds in `place`: an environment, `every` (in each), or `any` (in at least one)."""
        if self.kind not in ("key", "session") or not self.is_live:
            return False
        if self.workloads and role != "viewer" and about not in self.workloads:
            return False
        wanted = EVERY_ROLE if role == "viewer" else {role, "admin"}
        where = {"every": [EVERYWHERE], "any": list(self.roles)}.get(place, [EVERYWHERE, place])
        return any(wanted & self.roles.get(environment, frozenset()) for environment in where)

    def owns(self, about: str) -> bool:
        """Return whether the caller may edit the team's workloads: an editor on it, or an admin of everything."""
        if self.holds("admin", "every", about):
            return True
        on_team = self.on_team or (not self.is_person and about in self.workloads)
        return on_team and self.holds("editor", "any", about)


def _of_roles() -> Iterator[Credential]:
    for role in sorted(EVERY_ROLE):
        held = frozenset({role})
        for kind, name in (("key", "key"), ("session", "person")):
            for environment, where in ((EVERYWHERE, "everywhere"), (PLACE, "here"), ("staging", "elsewhere")):
                yield Credential(f"{name}: {role} {where}", kind, {environment: held}, on_team=True)
        yield Credential(f"person: {role} here, of another team", "session", {PLACE: held})


def _of_agents(workloads: frozenset[str]) -> Iterator[Credential]:
    """Return keys with the scope `agent`: of a person with all or few rights, or of nobody."""
    for name, environment, more in (
        ("everywhere", EVERYWHERE, {"on_team": True}),
        ("here", PLACE, {"on_team": True}),
        ("elsewhere", "staging", {"on_team": True}),
        ("limited to these", EVERYWHERE, {"on_team": True, "workloads": workloads}),
        ("limited to another", EVERYWHERE, {"on_team": True, "workloads": frozenset({"elsewhere"})}),
        ("of nobody", EVERYWHERE, {"is_person": False}),
    ):
        yield Credential(f"key: agent {name}", "key", {environment: AGENT_ROLES}, is_agent=True, **more)
    yield Credential("key: agent of a viewer", "key", {EVERYWHERE: frozenset({"viewer"})}, is_agent=True)


def all_credentials(workloads: frozenset[str]) -> list[Credential]:
    """Return every kind of caller. `workloads` are all that the world has."""
    everything, elsewhere = {EVERYWHERE: EVERY_ROLE}, frozenset({"elsewhere"})
    return [
        Credential("nobody", "none", is_live=False),
        Credential("router key", "router"),
        Credential("router key, limited", "router", workloads=workloads),
        Credential("key, expired", "key", everything, is_live=False),
        Credential("key, revoked", "key", everything, is_live=False),
        Credential("key of a deactivated person", "key", everything, is_live=False),
        Credential("session of a deactivated person", "session", everything, is_live=False),
        Credential("key: every scope", "key", everything, on_team=True),
        Credential(
            "key: every scope, limited to these", "key", everything, on_team=True, workloads=workloads
        ),
        Credential(
            "key: every scope, limited to another", "key", everything, on_team=True, workloads=elsewhere
        ),
        Credential("key: every scope, of nobody", "key", everything, is_person=False),
        Credential(
            "key: every scope, of nobody, limited to these",
            "key",
            everything,
            is_person=False,
            workloads=workloads,
        ),
        Credential("key: every scope, of a viewer", "key", {EVERYWHERE: frozenset({"viewer"})}),
        Credential("superuser", "session", everything),
        Credential("person without a role", "session"),
        *_of_roles(),
        *_of_agents(workloads),
    ]


def group_of(credential: Credential) -> str:
    """Return the group of callers tested together in one world: creating a world takes as long as a hundred
    requests."""
    if credential.name == "superuser":
        return "superuser"
    if not credential.roles or not credential.is_live:
        return "without a role"
    kind, _, rest = credential.name.partition(": ")
    held = [role for role in EVERY_ROLE if rest.startswith(role)]
    return (
        f"{kind}: {held[0]}" if kind == "person" and held else "key: one role" if held else f"{kind}: several"
    )


@dataclass(frozen=True)
class Caller:
    """A credential with a real account: its client, and the actor named by entries."""

    credential: Credential
    client: Client
    headers: Mapping[str, str]
    actor_id: str = ""


def make(credential: Credential, team: Team) -> Caller:
    client = Client(raise_request_exception=False)
    if credential.kind == "none":
        return Caller(credential, client, {})
    if credential.kind == "router":
        limit = sorted(credential.workloads)
        key, text = actions.issue_key("router", PLACE, "r", actor=SYSTEM, workloads=limit)
        return Caller(credential, client, {"Authorization": f"Bearer {text}"}, key.key_id)
    user = _person(credential, team)
    if credential.kind == "session":
        client.force_login(user)
        _deactivate(credential, user)
        return Caller(credential, client, {}, str(user.pk))
    key, text = _key(credential, user)
    return Caller(credential, client, {"Authorization": f"Bearer {text}"}, key.key_id)


def _person(credential: Credential, team: Team) -> User:
    user = User.objects.create(username="caller", is_superuser=credential.name == "superuser")
    for environment, roles in credential.roles.items():
        for role in roles:
            Membership.objects.create(user=user, environment=environment, role=role)
    if credential.on_team:
        team.members.add(user)
    return user


def _key(credential: Credential, user: User) -> tuple[Key, str]:
    """Create the key with the scopes in its name. Roles that its person lacks do not count."""
    ((environment, held),) = credential.roles.items()
    fields: dict[str, Any] = {
        "scopes": ["agent"]
        if credential.is_agent
        else sorted(EVERY_ROLE if "every scope" in credential.name else held),
        "workloads": sorted(credential.workloads),
        "user": user if credential.is_person else None,
    }
    key, text = actions.issue_key("admin", environment, "caller", actor=SYSTEM, **fields)
    an_hour_ago = clock.now() - timedelta(hours=1)
    ended = {"key, expired": "expires_at", "key, revoked": "revoked_at"}
    if field := ended.get(credential.name):
        Key.objects.filter(pk=key.pk).update(**{field: an_hour_ago})
    _deactivate(credential, user)
    return key, text


def _deactivate(credential: Credential, user: User) -> None:
    if "deactivated" in credential.name:
        User.objects.filter(pk=user.pk).update(is_active=False)
