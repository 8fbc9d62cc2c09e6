"""/api/v1 of rollouts: permissions, input checks and responses."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from controlplane.access.models import Role
from controlplane.audit.models import Entry
from controlplane.core import clock
from policies_app.models import Model
from rollout_app import actions
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.states import State
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import OutcomeBucket, Rollout
from tests.support import builders, places
from tests.support.api_client import person, send
from tests.support.in_states import IN
from tests.support.places import BEN, PLAN
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db

MOVES = {
    "submit": Role.EDITOR,
    "cancel": Role.EDITOR,
    "reject": Role.APPROVER,
    "withdraw-approval": Role.APPROVER,
    "approve": Role.APPROVER,
    "start": Role.OPERATOR,
    "break-glass": Role.OPERATOR,
    "advance": Role.OPERATOR,
    "complete": Role.OPERATOR,
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "roll-back": Role.OPERATOR,
    "abort": Role.OPERATOR,
    "revert": Role.OPERATOR,
}


def move(client: Client, rollout: Rollout, name: str, **headers: str) -> Any:
    return send(client, "post", f"rollouts/{rollout.pk}/{name}", {"reason": "because"}, **headers)


def test_it_walks_a_rollout_from_proposal_to_completion() -> None:
    environment, workload = builders.environment(four_eyes=True), builders.workload()
    builders.served(environment, workload)
    candidate = builders.version(workload, actor=places.ANNA)
    editor = person("editor", Role.EDITOR, Role.OPERATOR)
    workload.owner.members.add(User.objects.get(username="editor"))
    approver = person("approver", Role.APPROVER)
    body = {
        "environment": environment.name,
        "workload": workload.name,
        "candidate": candidate.number,
        "plan": "immediate",
        "reason": "cheaper",
    }
    answer = send(editor, "post", "rollouts", body)
    assert answer.status_code == 201, answer.json()
    rollout = Rollout.objects.get(pk=answer.json()["id"])
    assert move(editor, rollout, "approve").status_code == 403
    seen = send(approver, "get", f"rollouts/{rollout.pk}")
    approval = {"reason": "good", "binding": seen.json()["binding"]}
    path = f"rollouts/{rollout.pk}/approve"
    answer = send(approver, "post", path, approval, **{"If-Match": seen["ETag"]})
    assert (answer.status_code, answer.json()["state"]) == (200, "scheduled")
    assert move(editor, rollout, "start", **{"If-Match": seen["ETag"]}).status_code == 412
    answer = move(editor, rollout, "start", **{"If-Match": answer["ETag"]})
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
    answer = move(editor, rollout, "complete", **{"If-Match": answer["ETag"]})
    assert (answer.status_code, answer.json()["state"]) == (200, "completed")
    transitions = send(editor, "get", f"rollouts/{rollout.pk}/transitions").json()["items"]
    assert [item["event"] for item in transitions] == ["propose", "approve", "start", "complete"]


@pytest.mark.parametrize(("name", "role"), MOVES.items())
def test_it_requires_the_role(name: str, role: Role) -> None:
    rollout = places.proposed()
    client = person("somebody", *(set(Role) - {role, Role.ADMIN}))
    answer = move(client, rollout, name, **{"If-Match": "*"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "role_missing"


def test_it_shows_nothing_of_other_environments() -> None:
    rollout = places.proposed()
    client = person("elsewhere", Role.ADMIN, environment="another")
    assert send(client, "get", f"rollouts/{rollout.pk}").status_code == 404
    assert send(client, "get", "rollouts").json()["items"] == []
    assert move(client, rollout, "roll-back").status_code == 404


def test_it_requires_if_match_except_in_an_emergency() -> None:
    rollout = places.started()
    client = person("operator", Role.OPERATOR)
    assert move(client, rollout, "advance").status_code == 428
    assert move(client, rollout, "advance", **{"If-Match": '"1"'}).status_code == 412
    assert move(client, rollout, "roll-back").json()["state"] == "rolling_back"


def test_a_refused_move_lists_the_possible_ones() -> None:
    rollout = places.started()
    answer = move(person("operator", Role.OPERATOR), rollout, "resume", **{"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
    assert "pause" in answer.json()["allowed"]
    assert Entry.objects.filter(outcome="refused", action="rollout.resume").exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_input"),
        ({"plan": "standard", "stages": []}, "invalid_input"),
        ({"stages": [{"mode": "shadow"}]}, "plan_invalid"),
        ({"plan": "bold"}, "not_found"),
        ({"plan": "standard", "candidate": 99}, "not_found"),
        ({"plan": "standard", "workload": "nobody"}, "not_found"),
        ({"plan": "standard", "candidate": 2**63}, "invalid_input"),
        ({"plan": "standard", "reason": " "}, "invalid_input"),
    ],
)
def test_it_refuses_a_bad_proposal(body: dict[str, Any], code: str) -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    candidate = builders.version(workload).number
    good = {
        "environment": environment.name,
        "workload": workload.name,
        "candidate": candidate,
        "reason": "x",
    }
    answer = send(root, "post", "rollouts", good | body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"] == code
    assert not Rollout.objects.exists()


def test_it_stores_plans_and_requires_their_etag() -> None:
    editor = person("editor", Role.EDITOR)
    answer = send(editor, "post", "plans", {"name": "mine", "stages": PLAN})
    assert answer.status_code == 201, answer.json()
    assert send(editor, "post", "plans", {"name": "mine", "stages": PLAN}).status_code == 409
    assert send(editor, "patch", "plans/mine", {"stages": PLAN[1:]}).status_code == 428
    etag = {"If-Match": answer["ETag"]}
    assert send(editor, "patch", "plans/mine", {"stages": PLAN[1:]}, **etag).json()["version"] == 2
    assert send(editor, "delete", "plans/mine", **etag).status_code == 412
    assert send(editor, "delete", "plans/mine", **{"If-Match": '"2"'}).status_code == 204
    bad = send(editor, "post", "plans", {"name": "bad", "stages": [{"mode": "full", "colour": 1}]})
    assert (bad.status_code, bad.json()["problems"][0]["path"]) == (422, "stages[0].colour")


def test_it_stores_a_workloads_guardrails() -> None:
    workload = builders.workload()
    owner = person("owner", Role.EDITOR)
    path = f"workloads/{workload.name}/guardrails/failure"
    assert send(owner, "put", path, {"margin": 0.01}).status_code == 403
    workload.owner.members.add(User.objects.get(username="owner"))
    answer = send(owner, "put", path, {"margin": 0.01})
    assert (answer.json()["margin"], answer["ETag"]) == (0.01, '"1"')
    assert send(owner, "put", path, {"bound": 0.2}).json()["bound"] == 0.2
    assert send(owner, "put", path, {"margin": -1}).status_code == 422
    assert send(owner, "put", f"workloads/{workload.name}/guardrails/vibes", {}).status_code == 422
    listed = send(owner, "get", f"workloads/{workload.name}/guardrails").json()["items"]
    assert [(row["margin"], row["bound"]) for row in listed] == [(0.01, None), (None, 0.2)]
    read = {"If-Match": send(owner, "get", path)["ETag"]}
    assert send(owner, "delete", f"{path}?reason=why", **read).status_code == 204
    assert send(owner, "delete", f"{path}?reason=why", **read).status_code == 404
    assert send(owner, "get", path).status_code == 404
    assert send(owner, "get", f"{path}?absolute=true").json()["bound"] == 0.2
    assert send(owner, "delete", f"{path}?absolute=true&reason=why", **read).status_code == 204


@pytest.mark.parametrize("query", ["reason=why", "absolute=true&reason=why"])
def test_removing_a_guardrail_of_an_unknown_metric_is_refused(query: str) -> None:
    workload = builders.workload()
    owner = person("owner", Role.EDITOR)
    workload.owner.members.add(User.objects.get(username="owner"))
    path = f"workloads/{workload.name}/guardrails/vibes?{query}"
    assert send(owner, "delete", path, **{"If-Match": '"2"'}).status_code == 422


def test_a_guardrail_that_exists_is_changed_only_by_those_who_read_it() -> None:
    workload = builders.workload()
    owner = person("owner", Role.EDITOR)
    workload.owner.members.add(User.objects.get(username="owner"))
    path, one = f"workloads/{workload.name}/guardrails/failure", {"If-Match": '"1"'}
    missing = send(owner, "put", path, {"margin": 0.01}, **one)
    assert (missing.status_code, "does not exist any more" in missing.json()["detail"]) == (412, True)
    assert send(owner, "put", path, {"margin": 0.01}).status_code == 200
    assert send(owner, "put", path, {"margin": 0.01}).status_code == 200, "sent again: the answer was lost"
    assert send(owner, "put", path, {"margin": 0.005}).status_code == 428
    assert send(owner, "put", path, {"margin": 0.005}, **one)["ETag"] == '"2"'
    assert send(owner, "put", path, {"margin": 0.002}, **one).status_code == 412
    assert send(owner, "delete", f"{path}?reason=why").status_code == 428
    assert send(owner, "delete", f"{path}?reason=why", **one).status_code == 412
    assert send(owner, "put", path, {"margin": 0.002}, **{"If-Match": "*"})["ETag"] == '"3"'


def test_it_reviews_by_endpoint_with_earlier_figures() -> None:
    environment, workload = builders.environment(), builders.workload()
    version = builders.served(environment, workload).baseline
    now = clock.now()
    for days, endpoint, tasks, good in [(1, "/a", 300, 290), (1, "/b", 100, 50), (9, "/a", 200, 190)]:
        OutcomeBucket.objects.create(
            environment=environment,
            workload=workload,
            minute=now - timedelta(days=days),
            arm="baseline",
            version=version.number,
            endpoint=endpoint,
            rule="default",
            model="small",
            tasks=tasks,
            successes=good,
            failures=tasks - good,
            attempts=tasks,
            cost_n=tasks,
            cost_sum=tasks * 1_000,
        )
    path = f"environments/{environment.name}/review/{workload.name}"
    told = send(person("viewer", Role.VIEWER), "get", path).json()
    assert told["now"]["tasks"] == 400
    assert told["now"]["cost_per_success_nusd"] == pytest.approx(400_000 / 340)
    first, second = told["by_endpoint"]
    assert (first["endpoint"], first["now"]["share"], first["before"]["tasks"]) == ("/a", 0.75, 200)
    assert (second["endpoint"], second["now"]["success"], second["before"]["success"]) == ("/b", 0.5, None)
    assert told["diagnosis"]["code"] == "too_aggressive"  # all on the cheap model, 85 % under a bar of 90 %


@pytest.mark.parametrize(
    ("strongest", "code", "says"),
    [
        ("openai/gpt-4o-mini", "healthy", "no model is 10 % cheaper than large"),
        ("anthropic/claude-sonnet-4-5", "too_conservative", "saves 0.0 % compared with always using it"),
    ],
)
def test_it_is_not_too_conservative_if_the_strongest_model_is_not_dearer(
    strongest: str, code: str, says: str
) -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.catalogue()
    weakest = next(name for name in builders.CATALOGUE if name != strongest)
    Model.objects.filter(name=strongest).update(quality=0.95)
    Model.objects.filter(name=weakest).update(quality=0.8)
    version = builders.served(
        environment,
        workload,
        models={"small": {"model": weakest}, "large": {"model": strongest}},
        rank=["small", "large"],
    ).baseline
    OutcomeBucket.objects.create(
        environment=environment,
        workload=workload,
        minute=clock.now() - timedelta(days=1),
        arm="baseline",
        version=version.number,
        rule="heavy",
        model="large",
        tasks=500,
        successes=470,
        failures=30,
        attempts=500,
        cost_n=500,
        cost_sum=500_000,
    )
    path = f"environments/{environment.name}/review/{workload.name}"
    told = send(person("viewer", Role.VIEWER), "get", path).json()["diagnosis"]
    assert (told["code"], says in told["sentence"]) == (code, True), told["sentence"]


def test_it_returns_current_verdicts_and_their_changes() -> None:
    rollout = places.started(plan=[{"mode": "percentage", "share_pcm": 20_000}, {"mode": "full"}])
    client = person("viewer", Role.VIEWER)
    now = send(client, "get", f"rollouts/{rollout.pk}/judgement").json()
    assert {verdict["result"] for verdict in now["verdicts"]} == {"no_data"}
    unknown = "The baseline never reported this figure before the rollout."
    assert unknown not in {verdict["note"] for verdict in now["verdicts"]}  # it did, as the reference says
    waiting = places.proposed()
    before = send(client, "get", f"rollouts/{waiting.pk}/judgement").json()  # without a reference yet
    noted = {verdict["name"] for verdict in before["verdicts"] if verdict["note"] == unknown}
    assert noted == {"latency_tail", "cost_tail"}
    Traffic(rollout, start=clock.now() - timedelta(hours=1)).minutes(10)
    assert reconcile(rollout.pk) == "hold"
    now = send(client, "get", f"rollouts/{rollout.pk}/judgement").json()
    told = send(client, "get", f"rollouts/{rollout.pk}/verdicts?look=1").json()["items"]
    # The number of further tasks is computed per request and is not part of the record.
    asked = {verdict["name"]: verdict | {"needed_tasks": None} for verdict in now["verdicts"]}
    assert asked == {row["guardrail"]: row["data"] | {"needed_tasks": None} for row in told}


def test_it_reports_the_shadow_stage() -> None:
    rollout = places.started()
    Traffic(rollout, start=clock.now() - timedelta(hours=1)).minutes(2)
    told = send(person("viewer", Role.VIEWER), "get", f"rollouts/{rollout.pk}/shadow").json()
    assert (told["decisions"], told["agreement"]) == (400, 0.5)
    assert told["cost_change"] == pytest.approx(-0.3)
    assert told["shifts"] == {"large": -1.0, "small": 1.0}


def test_it_keeps_the_planned_start_of_a_rollout_whose_plan_is_amended() -> None:
    at = clock.now() + timedelta(days=1)
    rollout = places.proposed(scheduled_for=at)
    editor = person("editor", Role.EDITOR)
    rollout.workload.owner.members.add(User.objects.get(username="editor"))
    body: dict[str, Any] = {"reason": "slower", "plan": "cautious"}
    path = f"rollouts/{rollout.pk}"
    assert send(editor, "patch", path, body, **{"If-Match": '"2"'}).status_code == 200
    rollout.refresh_from_db()
    assert (rollout.plan_name, rollout.scheduled_for) == ("cautious", at)
    body = {"reason": "by hand", "scheduled_for": None}
    assert send(editor, "patch", path, body, **{"If-Match": '"3"'}).status_code == 200
    rollout.refresh_from_db()
    assert rollout.scheduled_for is None


@pytest.mark.parametrize("metric", ["failure", "cost_per_success", "quality", "latency_tail"])
def test_it_refuses_guardrails_that_cannot_be_judged(metric: str) -> None:
    """Otherwise the error would only appear at the next start."""
    rollout = places.approved()
    owner = person("owner", Role.EDITOR)
    rollout.workload.owner.members.add(User.objects.get(username="owner"))
    path = f"workloads/{rollout.workload.name}/guardrails/{metric}"
    kept = 0
    for name in ("bound", "margin"):
        for value in (-1, 0, 1e-9, 0.02, 0.999, 1, 1.5, 92, 1e17, 1e19):
            answer = send(owner, "put", path, {name: value, "reason": "why"}, **{"If-Match": "*"})
            assert answer.status_code in (200, 422), answer.content
            kept += answer.status_code == 200
            if answer.status_code == 422:
                assert [problem["path"] for problem in answer.json()["problems"]] == [name]
            guardrails_for(
                rollout.workload.guardrails.values("metric", "enabled", "margin", "weight", "bound")
            )
    assert kept >= 6
    actions.start_rollout(Rollout.objects.get(pk=rollout.pk), actor=BEN, reason="now")


@pytest.mark.parametrize(("margin", "status"), [(0.02, 200), (0.999, 200), (2, 422)])
def test_it_refuses_margins_of_a_whole_share_or_more(margin: float, status: int) -> None:
    """Regression: 2 was accepted as 200 points, which silently switched the guardrail off."""
    workload = builders.workload()
    owner = person("owner", Role.EDITOR)
    workload.owner.members.add(User.objects.get(username="owner"))
    path = f"workloads/{workload.name}/guardrails/failure"
    assert send(owner, "put", path, {"margin": margin, "reason": "why"}).status_code == status


@pytest.mark.parametrize("state", State)
def test_a_longer_list_takes_no_more_queries(state: State) -> None:
    """Each rollout added the queries of what can be done with it: its environment, what is served there, its approvals
    and what their approvers may do."""
    viewer = person("viewer", Role.VIEWER)

    def queries(rollouts: int) -> tuple[int, list[list[str]]]:
        while Rollout.objects.count() < rollouts:
            IN[state]()
        with CaptureQueriesContext(connection) as captured:
            items = viewer.get("/api/v1/rollouts").json()["items"]
        assert [item["state"] for item in items] == [state] * rollouts
        return len(captured), [item["can"] for item in items]

    (few, _), (more, can) = queries(1), queries(4)
    assert few == more
    alone = [
        viewer.get(f"/api/v1/rollouts/{pk}").json()["can"]
        for pk in Rollout.objects.values_list("pk", flat=True)
    ]
    assert can == alone
