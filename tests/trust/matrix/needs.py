"""What a row of the matrix says, and the rules by which a caller is granted it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.trust.matrix.credentials import PLACE, Credential
from tests.trust.matrix.world import World

Request = tuple[str, Any]  # the path below the prefix, the body
Asked = str | Callable[[World], Request]


@dataclass(frozen=True)
class Needs:
    """A role in a place, the workload that it is about, and what else."""

    role: str = "viewer"
    place: str = "any"  # an environment, `every` (a role that counts in each), or `any` (in one at least)
    about: str = ""  # a workload: a key that is limited to others will not do
    owner: bool = False  # of the workload: an editor of its team, or an admin of everything
    person: bool = False  # a key that belongs to nobody will not do
    no_limit: bool = False  # a key that is limited to workloads will not do
    nobody: bool = False  # only somebody in particular, who is none of the callers
    open: bool = False  # to anybody, also without a credential
    signed_in: bool = False  # a session is enough, without any role
    agents: bool = False  # a write that a key with the scope `agent` may make

    def allows(self, caller: Credential) -> bool:
        if self.nobody or (self.person and not caller.is_person) or (self.no_limit and caller.workloads):
            return False
        if not caller.holds(self.role, self.place, self.about):
            return self.signed_in and caller.kind == "session" and caller.is_live
        return caller.owns(self.about) if self.owner else True


def for_agents(needs: Needs) -> Needs:
    """The same, open to agents, too."""
    return replace(needs, agents=True)


@dataclass(frozen=True)
class Row:
    """`template` as Django has it, `asked` a request that a caller is granted who has what it `needs`."""

    method: str
    template: str
    needs: Needs
    asked: Asked
    ok: int = 200
    writes: bool = True

    def allows(self, caller: Credential) -> bool:
        """An agent reads, asks for what writes nothing, and writes where the row says so."""
        if caller.is_agent and self.writes and not self.needs.agents:
            return False
        return self.needs.allows(caller)

    def request(self, world: World) -> Request:
        return (self.asked, None) if isinstance(self.asked, str) else self.asked(world)


ANY, HERE, EVERY, OPEN = Needs(), Needs(place=PLACE), Needs(place="every"), Needs(open=True)
SIGNED_IN = Needs(signed_in=True)
WHY = {"reason": "because"}


def here(role: str, about: str = "", **more: Any) -> Needs:
    """This role in production."""
    return Needs(role, PLACE, about, **more)


def every(role: str) -> Needs:
    """This role in every environment."""
    return Needs(role, "every")


def owner(about: str, place: str = PLACE) -> Needs:
    """An editor in the place and on the team that owns the workload."""
    return Needs("editor", place, about, owner=True)


def row(method: str, template: str, needs: Needs, asked: Asked, ok: int = 0, *, writes: bool = True) -> Row:
    """Below /api/v1/. Without `ok`: 204 for DELETE, else 200. A GET never writes."""
    status = ok or (204 if method == "DELETE" else 200)
    return Row(method, f"api/v1/{template}", needs, asked, status, writes and method != "GET")


def page(method: str, template: str, needs: Needs, asked: Asked, ok: int = 0, *, writes: bool = True) -> Row:
    """Below /console/. Without `ok`: 200 for a page, 302 for a form that was taken."""
    status = ok or (200 if method == "GET" else 302)
    return Row(method, f"console/{template}", needs, asked, status, writes and method != "GET")
