"""Values that Pointsman itself could never write: `audit verify` names them, and Pointsman keeps working.

JSON of another shape, and a policy that is not JSON. Also, on SQLite, which stores any value in any column: text in
place of a number, a date that does not exist, bytes in place of text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models

from controlplane.audit import checkpoints, verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Assignment
from tests.support import append_only
from tests.support.callers import Caller
from tests.support.people import logged_in
from tests.support.tampering.draws import sql
from tests.support.tampering.instance import instance, undone

pytestmark = pytest.mark.django_db
NO_DATE, NO_TEXT = "2026-99-01 00:00:00", b"\xff\xfe"
OTHER_SHAPES: list[tuple[str, str, Any, str]] = [
    *(("mfa.Authenticator", "data", value, "person ") for value in ('"x"', "[3]", "null")),
    *(("notifications.Receiver", "secrets", value, "receiver ") for value in ('"x"', "[3]", "null", "{}")),
    *(("rollout_app.Rollout", "contributors", value, "contributor ") for value in ('"x"', "null", "3")),
    ("policies_app.PolicyVersion", "canonical", "{", "version "),
]
OF_ROWS: list[tuple[str, str, Any, str]] = [
    ("access.Key", "expires_at", NO_DATE, "key"),
    ("access.ChangeRequest", "created_at", NO_DATE, "change request"),
    ("auth.User", "last_login", NO_DATE, "person"),
    ("policies_app.Environment", "frozen_until", NO_DATE, "environment"),
    ("policies_app.Workload", "quality_bar", "x", "workload"),
    ("policies_app.Workload", "unit", NO_TEXT, "workload"),
    ("policies_app.PolicyVersion", "canonical", NO_TEXT, "version"),
    ("policies_app.PolicyVersion", "number", "x", "version"),
    ("policies_app.Assignment", "salt", NO_TEXT, "assignment"),
    ("policies_app.Assignment", "rollout", "x", "assignment"),
    ("rollout_app.Approval", "withdrawn_at", NO_DATE, "approval"),
    ("notifications.BreakGlass", "reviewed_at", NO_DATE, "review"),
]
OF_LOG: list[tuple[str, str, Any, str]] = [
    ("audit.Entry", "at", "x", "entry "),
    ("audit.Entry", "at", NO_DATE, "entry "),
    ("audit.Entry", "seq", "x", "entry "),
    ("audit.Entry", "body", "x", "entry "),
    ("audit.Checkpoint", "at", "x", "checkpoint"),
    ("audit.Checkpoint", "at", NO_DATE, "checkpoint"),
    ("audit.Checkpoint", "note", NO_TEXT, "checkpoint"),
    ("audit.Head", "seq", "x", "head"),
    ("audit.Head", "chain", NO_TEXT, "head"),
    ("audit.Head", "hash", NO_TEXT, "head"),
]
only_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL checks a column's type")


@pytest.fixture(autouse=True)
def _written(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.VAR_DIR = tmp_path
    instance()
    with append_only.lifted(), undone():
        yield


def written(model: type[models.Model], column: str, value: Any) -> None:
    """Put the value into the newest row."""
    table, key = model._meta.db_table, model._meta.pk.column
    (kept,) = (field.column for field in model._meta.concrete_fields if field.name == column)
    newest = f"(SELECT max(newest.{key}) FROM (SELECT {key} FROM {table}) AS newest)"
    if model._meta.pk.get_internal_type() == "UUIDField":
        newest = f"(SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT 1)"
    sql(f'UPDATE {table} SET "{kept}" = %s WHERE {key} = {newest}', value)


def found() -> list[str]:
    return [str(finding) for finding in verification.verify().findings]


@pytest.mark.parametrize(("label", "column", "value", "name"), OTHER_SHAPES)
def test_a_row_with_unexpected_json_is_named(label: str, column: str, value: Any, name: str) -> None:
    written(apps.get_model(label), column, value)
    assert any(finding.startswith(name) for finding in found())


@only_sqlite
@pytest.mark.parametrize(("label", "column", "value", "name"), OF_ROWS)
def test_a_row_that_cannot_be_read_is_found(label: str, column: str, value: Any, name: str) -> None:
    written(apps.get_model(label), column, value)
    assert any(finding.startswith(name) for finding in found())


@only_sqlite
@pytest.mark.parametrize(("label", "column", "value", "name"), OF_LOG)
def test_an_unreadable_log_is_found_and_writes_continue(
    label: str, column: str, value: Any, name: str
) -> None:
    written(apps.get_model(label), column, value)
    assert any(finding.startswith(name) for finding in found())
    newest = Entry.objects.order_by("-pk").values_list("pk", flat=True)[0]
    assignment = Assignment.objects.order_by("pk")[0]
    served = actions.served_assignment(assignment.environment_id, assignment.workload_id)
    actions.pin(served, "small", actor=SYSTEM, reason="emergency")
    assert Entry.objects.filter(pk__gt=newest, action="assignment.pin").exists()
    assert checkpoints.make() is not None
    assert found()


@pytest.mark.parametrize(
    "body", [b"x", b"{}", b"[]", b'{"diff":[]}', b"\xff", b'{"diff":[3]}', b'{"diff":[{"path":1}],"seq":0}']
)
def test_an_entry_with_an_unreadable_body_can_be_viewed(body: bytes) -> None:
    """An auditor opens the entry that verification named: its columns are shown, and so is the rest of the list."""
    call, client = Caller("admin"), logged_in("root", "admin")
    Entry.objects.filter(seq=2).update(body=body)
    for path in ("audit", "audit/2"):
        assert call("GET", path).status_code == 200
    shown = call("GET", "audit/2").json()
    assert (shown["seq"], shown["diff"], shown["target"]["kind"]) == (
        2,
        [],
        Entry.objects.get(seq=2).target_kind,
    )
    for path in ("audit/", "audit/2/"):
        client.raise_request_exception = False
        assert client.get(f"/console/{path}").status_code == 200
    assert any(finding.startswith("entry 2:") for finding in found())
