"""The API document describes an entry and a verification as they are answered."""

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from controlplane.audit import log
from controlplane.core.actors import SYSTEM
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db
TEXT, TEXT_OR_NULL, INTEGER = "string", ["string", "null"], "integer"
ENTRY: dict[str, Any] = {
    "v": INTEGER,
    "chain": TEXT,
    "seq": INTEGER,
    "ts": TEXT,
    "actor": {"kind": TEXT, "id": TEXT, "label": TEXT, "user_id": None},
    "action": TEXT,
    "target": {"kind": TEXT, "id": TEXT},
    "environment": TEXT,
    "workload": TEXT,
    "reason": TEXT,
    "outcome": TEXT,
    "diff": "array",
    "before_sha256": TEXT_OR_NULL,
    "after_sha256": TEXT_OR_NULL,
    "evidence": None,
    "approvals": None,
    "request_id": TEXT_OR_NULL,
    "source": TEXT_OR_NULL,
    "hash": TEXT,
    "prev_hash": TEXT,
}


@pytest.fixture
def document() -> Any:
    return Client().get("/api/v1/schema").json()


def answer_of(document: Any, path: str, method: str = "get") -> Any:
    found = document["paths"][f"/api/v1/{path}"][method]["responses"]["200"]["content"]
    schema = found["application/json"]["schema"]
    return (
        document["components"]["schemas"][ref.rpartition("/")[2]] if (ref := schema.get("$ref")) else schema
    )


def types(schema: Any) -> Any:
    """The types of an object's members; of an object in it, those of its members. None: any type."""
    assert schema["type"] == "object" and schema["required"] == list(schema["properties"])
    return {
        name: types(one) if one.get("type") == "object" else one.get("type")
        for name, one in schema["properties"].items()
    }


def test_the_document_has_each_member_of_an_entry_with_its_type(document: Any) -> None:
    entry = answer_of(document, "audit/{seq}")
    assert types(entry) == ENTRY
    listed = answer_of(document, "audit")["properties"]["items"]
    assert (listed["type"], types(listed["items"])) == ("array", ENTRY)
    members = entry["properties"]
    assert members["ts"]["format"] == "date-time"
    assert members["outcome"]["enum"] == ["done", "refused"]
    change = members["diff"]["items"]
    assert (change["type"], change["required"], list(change["properties"])) == (
        "object",
        ["path"],
        ["path", "before", "after"],
    )
    assert change["properties"]["path"]["type"] == TEXT
    explained = {
        "v",
        "chain",
        "seq",
        "actor",
        "action",
        "target",
        "evidence",
        "approvals",
        "hash",
        "prev_hash",
    }
    assert {name for name, one in members.items() if one.get("description")} >= explained


def test_an_entry_has_the_members_of_the_document() -> None:
    call = Caller("viewer")
    with transaction.atomic():
        written = log.record(actor=SYSTEM, action="a.b", target=("x", "1"))
    answer = call("GET", f"audit/{written.seq}").json()
    assert set(answer) == set(ENTRY)
    assert [set(answer[name]) for name in ("actor", "target")] == [
        set(ENTRY["actor"]), set(ENTRY["target"]),
    ]  # fmt: skip


def test_the_document_has_each_parameter_and_kind_of_export(document: Any) -> None:
    filters = [
        "actor_id", "actor_label", "action", "target_kind", "target_id", "environment", "workload", "outcome",
    ]  # fmt: skip
    for path, others in (("audit", {"cursor", "limit"}), ("audit/export", {"format"})):
        asked = document["paths"][f"/api/v1/{path}"]["get"]
        assert {one["name"] for one in asked["parameters"]} == {*filters, *others}
    (form,) = (one for one in asked["parameters"] if one["name"] == "format")
    assert sorted(form["schema"]["enum"]) == ["csv", "jsonl"]
    assert set(asked["responses"]["200"]["content"]) == {"application/jsonl", "text/csv"}


def test_the_document_has_each_member_of_a_verification(document: Any) -> None:
    found = answer_of(document, "audit/verification", "post")
    members = found["properties"]
    assert {name: one.get("type") for name, one in members.items()} == {
        "verified": "boolean",
        "entries": INTEGER,
        "hash": TEXT,
        "checkpoint": [INTEGER, "null"],
        "checkpoint_at": TEXT_OR_NULL,
        "findings": "array",
    }
    assert "requestBody" not in document["paths"]["/api/v1/audit/verification"]["post"]
