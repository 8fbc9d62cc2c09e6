"""Keys of agents: the scope `agent` cannot be combined, gives no more than its person has, and is recorded by name.

The matrix tests which URLs it opens (`tests/trust/matrix`).
"""

from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.access.models import Membership
from controlplane.audit.models import Entry
from tests.support import builders
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db
KEY = {"kind": "admin", "environment": "", "label": "code assistant", "scopes": ["agent"], "reason": "to try"}


def person(*roles: str) -> User:
    user = User.objects.create_user("ada")
    for role in roles:
        Membership.objects.create(user=user, role=role)
    return user


def minted(user: User, *scopes: str) -> Any:
    """What a key of this person, with these scopes, gets when it requests an agent's key."""
    return Caller(*scopes, user=user)("POST", "keys", KEY)


def agent_of(user: User) -> Caller:
    return Caller("agent", user=user)


def test_it_acts_for_the_person_who_creates_it() -> None:
    answer = minted(
        person("viewer", "editor", "operator", "approver"), "viewer", "editor", "operator", "approver"
    )
    assert answer.status_code == 201
    assert (answer.json()["scopes"], answer.json()["user"]) == (["agent"], "ada")


@pytest.mark.parametrize("scopes", [["viewer"], ["viewer", "editor"], ["approver"]])
def test_a_key_cannot_create_one_with_more_rights(scopes: list[str]) -> None:
    assert minted(person("viewer", "editor", "operator", "approver"), *scopes).status_code == 403


def test_an_agent_cannot_create_another_agent() -> None:
    answer = minted(person("admin"), "agent")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_for_agents")


@pytest.mark.parametrize("more", ["viewer", "approver", "admin"])
def test_it_cannot_be_combined_with_other_scopes(more: str) -> None:
    answer = Caller("admin", user=person("admin"))("POST", "keys", KEY | {"scopes": ["agent", more]})
    assert answer.status_code == 422
    assert "must be the only scope" in answer.json()["problems"][0]["message"]


def test_the_agent_of_an_admin_is_not_an_admin() -> None:
    agent = agent_of(person("admin"))
    assert agent("GET", "memberships").status_code == 403
    assert agent("GET", "environments").status_code == 200
    assert [key["key_id"] for key in agent("GET", "keys").json()["items"]] == [agent.key.key_id]


def test_it_has_no_more_rights_than_its_person() -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    builders.version(workload, rules=[])
    proposal = {
        "environment": environment.name,
        "workload": workload.name,
        "candidate": 2,
        "plan": "standard",
    }
    answer = agent_of(person("viewer"))("POST", "rollouts", proposal | {"reason": "cheaper"})
    assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")


def test_it_cannot_start_a_rollout() -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    builders.version(workload, rules=[])
    user = person("admin")
    workload.owner.members.add(user)
    agent = agent_of(user)
    proposal = {
        "environment": environment.name,
        "workload": workload.name,
        "candidate": 2,
        "plan": "standard",
    }
    later = {"reason": "cheaper", "scheduled_for": "2099-01-01T00:00:00Z"}
    answer = agent("POST", "rollouts", proposal | later)
    assert (answer.status_code, answer.json()["code"]) == (403, "not_for_agents")
    answer = agent("POST", "rollouts", proposal | {"reason": "cheaper"})
    assert answer.status_code == 201
    started = agent("POST", f"rollouts/{answer.json()['id']}/start", {"reason": "now"}, **{"If-Match": "*"})
    assert (started.status_code, started.json()["code"]) == (403, "not_for_agents")


def test_the_audit_log_names_it_also_in_refusals() -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    agent = agent_of(person("admin"))
    where = f"environments/{environment.name}/assignments/{workload.name}/pin"
    assert agent("POST", where, {"model": "large", "reason": "outage"}).status_code == 403
    entry = Entry.objects.latest("seq")
    assert (entry.actor_label, entry.outcome, entry.action) == (
        "agent key script of ada",
        "refused",
        "request.post",
    )
    assert entry.actor_id == agent.key.key_id
