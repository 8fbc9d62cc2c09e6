"""A key limited to some workloads: every write about another workload, or about none, is refused."""

from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.access import actions as access
from controlplane.access.models import Key
from controlplane.core.actors import SYSTEM, Actor
from policies_app.models import Assignment, Environment, Workload
from tests.support import builders
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db
EVERY_ROLE = ["viewer", "editor", "approver", "operator", "admin"]


@pytest.fixture
def place() -> tuple[Environment, Workload, Workload]:
    environment, mine, other = builders.environment(), builders.workload("mine"), builders.workload("other")
    for workload in (mine, other):
        builders.served(environment, workload)
    return environment, mine, other


@pytest.fixture
def narrowed() -> Caller:
    """Return the key of an administrator of everything, limited to the workload `mine`."""
    return Caller(*EVERY_ROLE, user=User.objects.create_superuser("root"), workloads=["mine"])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "environments/{e}/assignments/other/pin", {"model": "large", "reason": "r"}),
        ("POST", "environments/{e}/assignments/other/stop", {"reason": "r"}),
        ("POST", "environments/{e}/assignments/other/serve", {"version": 1, "reason": "r"}),
        ("PATCH", "workloads/other", {"description": "d"}),
        ("PUT", "workloads/other/guardrails/failure", {"enabled": False}),
        ("POST", "workloads/other/versions", {"text": "format: 1"}),
        ("POST", "rollouts", {"environment": "{e}", "workload": "other", "candidate": 1, "plan": "p", "reason": "r"}),
        ("POST", "workloads", {"name": "new", "task_type": "chat", "quality_bar": "0.9", "owner": "team"}),
        ("PATCH", "environments/{e}", {"description": "d"}),
        ("POST", "environments", {"name": "new"}),
        ("POST", "models", {"name": "a/b", "input_nusd_per_mtok": 1, "output_nusd_per_mtok": 1, "context_window": 1}),
        ("POST", "plans", {"name": "p", "stages": [{"mode": "full"}]}),
        ("POST", "teams", {"name": "t", "members": []}),
        ("PUT", "teams/team", {"members": []}),
        ("POST", "memberships", {"user": "root", "role": "admin", "environment": ""}),
        ("POST", "keys", {"kind": "admin", "label": "wide", "scopes": ["admin"]}),
        ("POST", "keys", {"kind": "admin", "label": "other", "scopes": ["viewer"], "workloads": ["other"]}),
        ("POST", "keys", {"kind": "router", "environment": "{e}", "label": "wide"}),
        ("POST", "keys", {"kind": "router", "environment": "{e}", "label": "x", "workloads": ["other"]}),
    ],
)  # fmt: skip
def test_it_may_not_write_outside_its_workloads(
    place: tuple[Environment, Workload, Workload],
    narrowed: Caller,
    method: str,
    path: str,
    body: dict[str, Any],
) -> None:
    environment, _, other = place
    builders.team("team")
    filled = {k: v.format(e=environment.name) if isinstance(v, str) else v for k, v in body.items()}
    before = (Assignment.objects.get(workload=other).revision, Key.objects.count())
    response = narrowed(method, path.format(e=environment.name), filled, **{"If-Match": "*"})
    assert response.status_code == 403, response.content
    assert (Assignment.objects.get(workload=other).revision, Key.objects.count()) == before


def test_it_may_write_about_its_workloads(
    place: tuple[Environment, Workload, Workload], narrowed: Caller
) -> None:
    at = f"environments/{place[0].name}/assignments/mine"
    assert narrowed("POST", f"{at}/pin", {"model": "large", "reason": "r"}).status_code == 200
    body = {"kind": "admin", "label": "ci", "scopes": ["viewer", "editor"], "workloads": ["mine"]}
    assert narrowed("POST", "keys", body).json()["workloads"] == ["mine"]


def test_the_refusal_names_the_keys_limits(
    place: tuple[Environment, Workload, Workload], narrowed: Caller
) -> None:
    path = f"environments/{place[0].name}/assignments/other/pin"
    problem = narrowed("POST", path, {"model": "large", "reason": "r"}).json()
    assert problem["code"] == "key_limited"
    assert "limited to mine" in problem["detail"]


def test_a_person_sees_and_revokes_their_own_keys_without_being_an_admin() -> None:
    ann = User.objects.create_user("ann")
    access.grant_role(ann, "viewer", "production", actor=SYSTEM)
    hers = Caller("viewer", environment="production", user=ann)
    other = Caller("viewer", environment="production", user=ann)
    hers.client.force_login(ann)
    listed = hers.client.get("/api/v1/keys").json()["items"]
    assert {item["key_id"] for item in listed} == {hers.key.key_id, other.key.key_id}
    assert [item["key_id"] for item in hers("GET", "keys").json()["items"]] == [hers.key.key_id]
    access.rotate_key(other.key.key_id, actor=Actor.of_user(ann))
