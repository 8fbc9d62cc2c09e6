"""The API behaves as its document says for any request, and the document is complete enough for a stranger.

One round sends 5,000 random requests to SQLite, and a quarter of them to PostgreSQL. `make fuzz` runs more rounds,
each with its own seed, whole on both.
"""

import json
import os
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from controlplane.access import actions
from controlplane.core.actors import SYSTEM
from controlplane.web.document import document as made_document
from rollout_app.engine.metrics import Metric
from tests.support.fuzzing import Fuzzer, quiet_requests
from tests.trust.matrix import world

pytestmark = pytest.mark.django_db
ERRORS = {"400", "401", "403", "404", "409", "412", "413", "415", "422", "428", "429", "503"}
CASES = 5_000  # per round, over all parts
PARTS = 4  # run in parallel if there are workers
SEED = int(os.environ.get("FUZZ_SEED", 12))


@pytest.mark.timeout(1_200)  # a thousand requests take five minutes on a busy machine
@pytest.mark.parametrize("part", range(PARTS))
def test_every_answer_is_in_the_document(part: int) -> None:
    made = world.make()
    root = User.objects.create_superuser("fuzzer")
    made.team.members.add(root)
    scopes = ["viewer", "editor", "approver", "operator", "admin"]
    _, key = actions.issue_key("admin", "", "fuzz", actor=SYSTEM, user=root, scopes=scopes)
    fuzzer = Fuzzer(made, key, SEED)
    operations = fuzzer.operations()
    mine = operations[part::PARTS]
    # What a view refuses seldom depends on the database.
    cases = CASES if connection.vendor == "sqlite" or "FUZZ_SEED" in os.environ else CASES // 4
    with quiet_requests():
        for operation in mine:
            # Operations with few values are exhausted soon.
            fuzzer.ask(operation, cases // len(operations) + 3)
    asked = sum(fuzzer.asked.values())
    print(f"seed {SEED}, part {part + 1} of {PARTS}: {asked} requests, {dict(sorted(fuzzer.asked.items()))}")
    assert not fuzzer.failures, "\n\n".join(fuzzer.failures.values())
    assert asked >= cases * len(mine) / len(operations)
    assert sum(count for status, count in fuzzer.asked.items() if status < 300) > asked / 4, (
        "too few are accepted"
    )


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Client().get("/api/v1/schema").content)
    return found


def operations() -> list[tuple[str, dict[str, Any]]]:
    paths = document()["paths"].items()
    return [(f"{m.upper()} {path}", one) for path, methods in paths for m, one in methods.items()]


def test_the_document_is_built_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is public and takes a second to build: frequent requests once kept a process busy."""
    made = []
    generate: Any = SchemaGenerator.get_schema

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return generate(*args, **kwargs)

    monkeypatch.setattr(SchemaGenerator, "get_schema", counted)
    made_document.cache_clear()
    answers = {
        client.get("/api/v1/schema", query).content for query in ({}, {"version": "2"}, {"lang": "de"})
    }
    assert (len(answers), len(made)) == (1, 1)


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


def test_a_versioned_write_documents_if_match() -> None:
    """Every write that the matrix sends with `If-Match` documents the header."""
    asking = {
        name for name, one in operations() if any(p["name"] == "If-Match" for p in one.get("parameters", []))
    }
    assert {name for name, _ in operations() if name.startswith("PATCH ")} <= asking
    assert "DELETE /api/v1/plans/{plan}" in asking
    assert "POST /api/v1/rollouts/{rollout}/advance" in asking


def test_values_shown_once_may_be_null_in_a_repeated_answer() -> None:
    schemas = document()["components"]["schemas"]
    for answer, member in (("NewKey", "key"), ("NewInvitation", "link"), ("NewReceiver", "secret")):
        assert schemas[answer]["properties"][member]["type"] == ["string", "null"]


def test_read_only_fields_document_where_they_may_be_null_or_empty() -> None:
    schemas = document()["components"]["schemas"]
    key, rollout = schemas["Key"]["properties"], schemas["Rollout"]["properties"]
    assert key["user"]["type"] == rollout["looked_at"]["type"] == ["string", "null"]
    assert {"type": "string", "maxLength": 0} in key["environment"]["oneOf"]  # in every environment
    assert {"$ref": "#/components/schemas/BlankEnum"} in schemas["Assignment"]["properties"]["mode"]["oneOf"]


def test_every_member_of_an_audit_entry_is_documented() -> None:
    answer = dict(operations())["GET /api/v1/audit/{seq}"]["responses"]["200"]
    entry = answer["content"]["application/json"]["schema"]
    assert {"actor", "action", "target", "reason", "diff", "hash", "prev_hash"} <= set(entry["required"])
    assert entry["properties"]["diff"]["items"]["required"] == ["path"]


def test_a_file_has_its_own_media_type() -> None:
    answers = {name: one["responses"]["200"]["content"] for name, one in operations() if "." in name}
    assert {name.rpartition(".")[2]: list(content) for name, content in answers.items()} == {
        "csv": ["text/csv"],
        "md": ["text/markdown"],
    }


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
