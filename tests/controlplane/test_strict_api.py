"""The admin API refuses names that it does not know and values that it cannot use; unchanged values change nothing."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import resolve

from controlplane.audit.models import Entry
from policies_app.models import Model, Workload
from rollout_app.models import GuardrailOverride
from tests.support.callers import Caller
from tests.trust.matrix import world

pytestmark = pytest.mark.django_db
IF = {"If-Match": "*"}
OLD_NAMES = {"look"}  # still understood, no longer documented


@pytest.fixture
def call() -> Caller:
    world.make()
    return Caller()


def problem(answer: Any, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    return str(answer.json()["detail"])


def test_a_misspelt_member_is_refused_and_the_right_one_suggested(call: Caller) -> None:
    workload = Workload.objects.earliest("pk")
    answer = call("PUT", f"workloads/{workload.name}/guardrails/failure", {"margins": 0.5, "reason": "r"})
    assert "Did you mean `margin`?" in problem(answer, 400, "unknown_member")
    assert answer.json()["problems"][0]["path"] == "margins"
    assert not GuardrailOverride.objects.filter(workload=workload, metric="failure").exists()
    model = Model.objects.earliest("pk")
    answer = call("PATCH", f"models/{model.name}", {"context_windw": 9}, **IF)
    assert "`context_window`" in problem(answer, 400, "unknown_member")
    assert Model.objects.get(pk=model.pk).version == model.version


def test_nested_members_are_checked_too(call: Caller) -> None:
    body = {"invited": "x", "roles": [{"role": "viewer", "enviroment": "production"}], "reason": "r"}
    answer = call("POST", "invitations", body)
    problem(answer, 400, "unknown_member")
    assert answer.json()["problems"] == [
        {"path": "roles/0/enviroment", "message": "There is no such member. Did you mean `environment`?"}
    ]


def test_a_member_that_cannot_be_set_is_refused(call: Caller) -> None:
    model = Model.objects.earliest("pk")
    answer = call("PATCH", f"models/{model.name}", {"name": "other", "version": 9}, **IF)
    assert "cannot be set here" in problem(answer, 400, "unknown_member")


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("audit?since=2026-01-01", "actor_id"),
        ("audit?envronment=production", "Did you mean `environment`?"),
        ("rollouts?stat=running", "Did you mean `state`?"),
        ("keys?x=1", "limit"),
        ("people/1?x=1", "It takes none"),
        ("rollouts?state=running&state=paused", "given 2 times"),
    ],
)
def test_an_unknown_query_parameter_is_refused(call: Caller, query: str, hint: str) -> None:
    assert hint in problem(call("GET", query), 400, "unknown_parameter")


@pytest.mark.parametrize("limit", ["-1", "0", "abc", "201", "", "1.5", "٣", "9" * 5000])
def test_an_invalid_limit_is_refused(call: Caller, limit: str) -> None:
    assert "1 to 200" in problem(call("GET", f"rollouts?limit={limit}"), 422, "invalid_input")


def test_a_flag_is_true_or_false(call: Caller) -> None:
    problem(call("GET", "break-glass?open=yes"), 422, "invalid_input")
    assert call("GET", "break-glass?open=true").status_code == 200


def test_the_same_values_make_no_version_and_no_entry(call: Caller) -> None:
    model, workload = Model.objects.earliest("pk"), Workload.objects.earliest("pk")
    before = Entry.objects.count()
    for path, body in (
        (f"models/{model.name}", {}),
        (f"models/{model.name}", {"input_nusd_per_mtok": model.input_nusd_per_mtok, "reason": "r"}),
        (f"workloads/{workload.name}", {"description": workload.description}),
        ("environments/production", {}),
        ("teams/" + workload.owner.name, None),
    ):
        if body is None:
            members = [one.username for one in workload.owner.members.all()]
            assert call("PUT", path, {"members": members}).status_code == 200
            continue
        version = call("GET", path).json()["version"]
        assert call("PATCH", path, body, **IF).json()["version"] == version, path
    assert Entry.objects.count() == before


def test_the_same_guardrail_makes_no_version_and_no_entry(call: Caller) -> None:
    workload = Workload.objects.earliest("pk")
    path, body = f"workloads/{workload.name}/guardrails/failure", {"margin": 0.5, "reason": "r"}
    version = call("PUT", path, body).json()["version"]
    before = Entry.objects.count()
    assert call("PUT", path, body).json()["version"] == version
    assert Entry.objects.count() == before


def test_a_new_price_is_still_marked_as_set_by_a_person(call: Caller) -> None:
    model = Model.objects.earliest("pk")
    Model.objects.filter(pk=model.pk).update(price_source="CSV prices.csv")
    price = model.input_nusd_per_mtok or 0
    assert call("PATCH", f"models/{model.name}", {"input_nusd_per_mtok": price + 1}, **IF).status_code == 200
    assert Model.objects.get(pk=model.pk).price_source == ""


def test_the_document_allows_no_unknown_members_in_bodies() -> None:
    schemas = Client().get("/api/v1/schema").json()["components"]["schemas"]
    for name in ("GuardrailInput", "PatchedModelEdit", "ProposeInput", "TasksFile"):
        assert schemas[name]["additionalProperties"] is False, name
    assert "additionalProperties" not in schemas["Model"]


def test_every_query_parameter_of_the_document_is_known(call: Caller) -> None:
    unknown = []
    for path, methods in Client().get("/api/v1/schema").json()["paths"].items():
        address = re.sub(r"\{[^}]*\}", "1", path).removeprefix("/api/v1/")
        address = re.sub(
            "rollouts/1|receivers/1|change-requests/1", lambda m: f"{m[0][:-1]}{uuid4()}", address
        )
        for one in methods.get("get", {}).get("parameters", []):
            if one["in"] == "query":
                answer = call("GET", f"{address}?{one['name']}=x")
                if answer.status_code == 400 and b"unknown_parameter" in answer.content:
                    unknown.append((path, one["name"]))
    assert unknown == []


def test_every_view_declares_the_query_parameters_of_its_document() -> None:
    """A view that forgets one refuses it; one that declares too much ignores a name that it should refuse."""
    differing = {}
    for path, methods in Client().get("/api/v1/schema").json()["paths"].items():
        for method, operation in methods.items():
            given = operation.get("parameters", [])
            values = {one["name"]: _filler(one["schema"]) for one in given if one["in"] == "path"}
            view: Any = resolve(path.format(**values)).func
            declared = {"get": view.cls.queries, "delete": view.cls.delete_queries}.get(method, ())
            documented = {one["name"] for one in given if one["in"] == "query"}
            if set(declared) - OLD_NAMES != documented:
                differing[f"{method} {path}"] = (sorted(declared), sorted(documented))
    assert differing == {}


def _filler(schema: dict[str, Any]) -> str:
    return str(uuid4()) if schema.get("format") == "uuid" else "1"


def test_a_write_with_a_body_takes_no_query_parameter(call: Caller) -> None:
    workload = Workload.objects.earliest("pk")
    answer = call("PUT", f"workloads/{workload.name}/guardrails/failure?absolute=true", {"margin": 0.5})
    assert "It takes none" in problem(answer, 400, "unknown_parameter")
    assert "limit" in problem(call("GET", "teams?reason=x"), 400, "unknown_parameter")
