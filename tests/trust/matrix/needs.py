"""The rows of the matrix, and the rules that grant a caller access."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.trust.matrix.credentials import PLACE, Credential
from tests.trust.matrix.world import World

Request = tuple[str, Any]  # path below the prefix, and the body
Asked = str | Callable[[World], Request]


@dataclass(frozen=True)
class Needs:
    """A role in a place, the workload concerned, and further conditions."""

    role: str = "viewer"
    place: str = "any"  # an environment, `every` (a role that holds in each), or `any` (in at least one)
    about: str = ""  # a workload; a key limited to others is not enough
    owner: bool = False  # owns the workload: an editor of its team, or an admin of everything
    person: bool = False  # a key without a person is not enough
    no_limit: bool = False  # a key limited to workloads is not enough
    nobody: bool = False  # only a particular person, who is not among the callers
    open: bool = False  # for anybody, also without a credential
    signed_in: bool = False  # a session is enough, without a role
    agents: bool = False  # a write that a key with the scope `agent` may make

    def allows(self, caller: Credential) -> bool:
        if self.nobody or (self.person and not caller.is_person) or (self.no_limit and caller.workloads):
            return False
        if not caller.holds(self.role, self.place, self.about):
            return self.signed_in and caller.kind == "session" and caller.is_live
        return caller.owns(self.about) if self.owner else True


def for_agents(needs: Needs) -> Needs:
    """Return the same needs, also open to agents."""
    return replace(needs, agents=True)


@dataclass(frozen=True)
class Row:
    """`template` is Django's URL pattern; `asked` is a request granted to a caller with what it `needs`."""

    method: str
    template: str
    needs: Needs
    asked: Asked
    ok: int = 200
    writes: bool = True

    def allows(self, caller: Credential) -> bool:
        """Return whether the row allows the caller. An agent reads, sends requests that write nothing, and writes if
        the row allows it."""
        if caller.is_agent and self.writes and not self.needs.agents:
            return False
        return self.needs.allows(caller)

    def request(self, world: World) -> Request:
        return (self.asked, None) if isinstance(self.asked, str) else self.asked(world)


ANY, HERE, EVERY, OPEN = Needs(), Needs(place=PLACE), Needs(place="every"), Needs(open=True)
SIGNED_IN = Needs(signed_in=True)
WHY = {"reason": "because"}


def here(role: str, about: str = "", **more: Any) -> Needs:
    """Return needs: this role in production."""
    return Needs(role, PLACE, about, **more)


def every(role: str) -> Needs:
    """Return needs: this role in every environment."""
    return Needs(role, "every")


def owner(about: str, place: str = PLACE) -> Needs:
    """Return needs: an editor in the place and on the team that owns the workload."""
    return Needs("editor", place, about, owner=True)


def row(method: str, template: str, needs: Needs, asked: Asked, ok: int = 0, *, writes: bool = True) -> Row:
    """Return a row below /api/v1/. Default `ok`: 204 for DELETE, otherwise 200. A GET never writes."""
    status = ok or (204 if method == "DELETE" else 200)
    return Row(method, f"api/v1/{template}", needs, asked, status, writes and method != "GET")


def page(method: str, template: str, needs: Needs, asked: Asked, ok: int = 0, *, writes: bool = True) -> Row:
    """Return a row below /console/. Default `ok`: 200 for a page, 302 for an accepted form."""
    status = ok or (200 if method == "GET" else 302)
    return Row(method, f"console/{template}", needs, asked, status, writes and method != "GET")
