"""A change that affects an environment needs the role there: how a workload is judged affects all that serve it."""

from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.access import actions as access
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import RoleMissing, RolloutActive
from policies_app import actions
from policies_app.models import Assignment, Workload
from rollout_app import actions as rollouts
from tests.support import builders
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db


def editor(name: str, workload: Workload, *environments: str) -> Actor:
    user = User.objects.create_user(name)
    workload.owner.members.add(user)
    for environment in environments:
        access.grant_role(user, "editor", environment, actor=SYSTEM)
    return Actor.of_user(user)


@pytest.fixture
def workload() -> Workload:
    """Return a workload served in staging and in production."""
    return builders.served_in_two_environments()


CHANGES: list[dict[str, Any]] = [
    {"unit": "user"},
    {"quality_bar": "0.01"},
    {"outcome_lag_s": 5},
    {"success_signal": "downstream"},
    {"latency_tolerance_ms": 1},
    {"retryable": False},
    {"task_type": "chat"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_editor_of_staging_changes_nothing_in_production(
    workload: Workload, change: dict[str, Any]
) -> None:
    before = list(Assignment.objects.values("revision", "fragment"))
    with pytest.raises(RoleMissing, match="production"):
        actions.edit_workload(workload, actor=editor("ann", workload, "staging"), reason="r", **change)
    assert list(Assignment.objects.values("revision", "fragment")) == before
    both = editor("bob", workload, "staging", "production")
    actions.edit_workload(workload, actor=both, reason="r", **change)


def test_an_editor_of_staging_changes_no_guardrails_in_production(workload: Workload) -> None:
    staging, both = editor("ann", workload, "staging"), editor("bob", workload, "staging", "production")
    with pytest.raises(RoleMissing, match="production"):
        rollouts.set_guardrail(workload, "failure", actor=staging, enabled=False, reason="r")
    rollouts.set_guardrail(workload, "failure", actor=both, margin=0.03, reason="r")
    with pytest.raises(RoleMissing, match="production"):
        rollouts.remove_guardrail(workload, "failure", actor=staging, reason="r")


def test_a_description_affects_no_environment(workload: Workload) -> None:
    edited = actions.edit_workload(
        workload, actor=editor("ann", workload, "staging"), description="of tickets"
    )
    assert edited.description == "of tickets"


def test_the_role_is_not_needed_where_the_workload_is_not_served() -> None:
    workload = builders.workload()
    actions.edit_workload(workload, actor=editor("ann", workload, "staging"), unit="user", reason="r")


def test_how_a_rollout_is_judged_cannot_change_while_it_is_under_way(workload: Workload) -> None:
    staging = Assignment.objects.get(environment__name="staging").environment
    rollout = rollouts.propose_rollout(
        staging, workload, builders.version(workload), plan=[{"mode": "full"}], reason="r", actor=SYSTEM
    )
    rollouts.start_rollout(rollout, actor=SYSTEM, reason="now")
    for change in CHANGES[:5]:
        with pytest.raises(RolloutActive):
            actions.edit_workload(workload, actor=SYSTEM, reason="r", **change)


def test_the_api_names_the_environment_where_the_role_is_missing(workload: Workload) -> None:
    editor("ann", workload, "staging")
    call = Caller("viewer", "editor", user=User.objects.get(username="ann"))
    refused = call("PATCH", "workloads/summaries", {"unit": "user"}, **{"If-Match": "*"}).json()
    assert (refused["code"], refused["environment"]) == ("role_missing", "production")
    refused = call("PUT", "workloads/summaries/guardrails/failure", {"enabled": False}).json()
    assert (refused["code"], refused["environment"]) == ("role_missing", "production")
