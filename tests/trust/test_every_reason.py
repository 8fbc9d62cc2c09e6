"""Every write takes a reason: each URL of the matrix, and each operation of the API's document."""

from typing import Any

import pytest

from tests.trust.matrix import credentials, world
from tests.trust.matrix.asking import CREDENTIALS, ROWS, asked, is_page
from tests.trust.test_api_document import document, operations

pytestmark = pytest.mark.django_db
# Requests that write nothing.
ASKING = ("validate", "backtest", "dry-run", "rehearse", "replay", "audit/verification", "decide")


@pytest.mark.parametrize("name", ["superuser", "key: every scope"])
def test_the_entry_has_the_given_reason(name: str) -> None:
    made = world.make()
    credential = next(one for one in CREDENTIALS if one.name == name)
    caller, lost, writes = credentials.make(credential, made.team), {}, 0
    for row in ROWS:
        if not (row.writes and row.allows(credential)) or (is_page(row) and credential.kind != "session"):
            continue
        response, path, entries = asked(row, caller, made)
        done = [entry for entry in entries if entry.outcome == "done"]
        writes += bool(done)
        given = path.partition("reason=")[2] or "because"
        if response.status_code == row.ok and {entry.reason for entry in done} - {given}:
            lost[f"{row.method} {path}"] = [(entry.action, entry.reason) for entry in done]
    assert lost == {}
    assert writes > 30


def fields_of(operation: dict[str, Any]) -> set[str]:
    """Return the names of the members of a request's body and of its parameters."""
    found = {parameter["name"] for parameter in operation.get("parameters", [])}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        if name := schema.get("$ref", "").rpartition("/")[2]:
            schema = document()["components"]["schemas"][name]
        found |= set(schema.get("properties", {}))
    return found


def test_every_write_of_the_document_takes_a_reason() -> None:
    writes = [(name, one) for name, one in operations() if not name.startswith("GET ")]
    without = [name for name, one in writes if not fields_of(one) & {"reason", "note"}]
    assert len(writes) > 40
    assert [name for name in without if not any(word in name for word in ASKING)] == []
