"""The API document says what a stranger needs: each operation in a sentence, its errors, parameters and types."""

import json
from typing import Any

import pytest
from django.test import Client

from rollout_app.engine.metrics import Metric

pytestmark = pytest.mark.django_db
ERRORS = {"400", "401", "403", "404", "409", "412", "413", "415", "422", "428", "429", "503"}


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Client().get("/api/v1/schema").content)
    return found


def operations() -> list[tuple[str, dict[str, Any]]]:
    paths = document()["paths"].items()
    return [(f"{m.upper()} {path}", one) for path, methods in paths for m, one in methods.items()]


def test_every_operation_is_described_in_a_sentence() -> None:
    bad = {
        name: one.get("description", "")
        for name, one in operations()
        if not one.get("description", "").split("\n\n")[0].rstrip().endswith((".", "!"))
        or len(one["description"].split()) < 3
        or one["description"].startswith("Base ")
    }
    assert bad == {}, (
        "give the view's method a docstring: what it does, for somebody who has not seen the code"
    )


def test_every_parameter_is_described() -> None:
    bad = [
        (name, p["name"])
        for name, one in operations()
        for p in one.get("parameters", [])
        if not p.get("description")
    ]
    assert bad == [], "give it a description, or its name a line in controlplane/web/openapi.py"


def test_every_operation_names_its_errors() -> None:
    named: set[str] = set()
    for name, one in operations():
        codes = set(one["responses"])
        named |= codes
        assert {"400", "401", "403", "422", "429", "503"} <= codes, name
        if any(p["name"] == "If-Match" for p in one.get("parameters", [])):
            assert {"412", "428", "409"} <= codes, name
        if "requestBody" in one:
            assert {"413", "415"} <= codes, name
        for code in codes & ERRORS:
            assert list(one["responses"][code]["content"]) == ["application/problem+json"], (name, code)
    assert named >= ERRORS


def test_a_write_to_a_thing_with_a_version_asks_for_it() -> None:
    """All that the matrix changes with `If-Match` says so."""
    asking = {
        name for name, one in operations() if any(p["name"] == "If-Match" for p in one.get("parameters", []))
    }
    assert {name for name, _ in operations() if name.startswith("PATCH ")} <= asking
    assert "DELETE /api/v1/plans/{plan}" in asking
    assert "POST /api/v1/rollouts/{rollout}/advance" in asking


def test_policy_stages_metric_and_judgement_have_their_types() -> None:
    schemas = document()["components"]["schemas"]
    policy = schemas["VersionInput"]["properties"]["policy"]
    assert {"models", "rules", "default", "escalate"} <= set(policy["properties"])
    assert schemas["Plan"]["properties"]["stages"]["items"] == {"$ref": "#/components/schemas/Stage"}
    assert schemas["Stage"]["required"] == ["mode"]
    metrics = {metric.value for metric in Metric}
    (asked,) = (one for name, one in operations() if name.startswith("PUT") and "guardrails" in name)
    assert set(next(p for p in asked["parameters"] if p["name"] == "metric")["schema"]["enum"]) == metrics
    assert {"verdicts", "log_e", "strata", "missing"} <= set(schemas["Judgement"]["properties"])
