"""Sends a row's request as a caller, and reports deviations from the row."""

from collections.abc import Iterator
from typing import Any

from django.db import transaction

from controlplane.audit.models import Entry
from tests.trust.matrix import (
    access_rows,
    console_rows,
    credentials,
    notification_rows,
    policy_rows,
    rollout_rows,
    setup_rows,
)
from tests.trust.matrix.credentials import Caller, Credential
from tests.trust.matrix.needs import Row
from tests.trust.matrix.world import WORKLOADS, World

ROWS = [
    *access_rows.ROWS,
    *policy_rows.ROWS,
    *rollout_rows.ROWS,
    *console_rows.ROWS,
    *setup_rows.ROWS,
    *notification_rows.ROWS,
]
CREDENTIALS = credentials.all_credentials(WORKLOADS)


def is_page(row: Row) -> bool:
    return row.template.startswith("console/")


def pairs() -> list[tuple[Row, Credential]]:
    """Return every URL with every credential. Keys open no pages: for the console, their holder is anonymous."""
    return [
        (row, credential)
        for credential in CREDENTIALS
        for row in ROWS
        if not (is_page(row) and credential.kind in ("key", "router"))
    ]


def expected_statuses(row: Row, credential: Credential) -> set[int]:
    if row.needs.open or row.allows(credential):
        return {row.ok}
    if is_page(row):
        # a refused form is shown again with the reason: 422
        return {403, 404, 422} if credential.is_live else {302}
    if credential.kind == "router":
        return {403}
    return {403, 404} if credential.is_live else {401}


def send(row: Row, caller: Caller, path: str, body: Any) -> Any:
    call = getattr(caller.client, row.method.lower())
    if is_page(row):
        return call(f"/console/{path}", body or {})
    headers = {"If-Match": "*", **caller.headers}
    if row.method == "GET":
        return call(f"/api/v1/{path}", headers=headers)
    return call(f"/api/v1/{path}", body, content_type="application/json", headers=headers)


def asked(row: Row, caller: Caller, world: World) -> tuple[Any, str, list[Entry]]:
    """Return the answer, the path, and the entries written; everything is rolled back."""
    with transaction.atomic():
        path, body = row.request(world)
        before = Entry.objects.count()
        response = send(row, caller, path, body)
        left = list(Entry.objects.order_by("seq")[before:])
        transaction.set_rollback(True)
    return response, path, left


def complaints(row: Row, caller: Caller, world: World) -> Iterator[str]:
    response, path, left = asked(row, caller, world)
    status, expected = response.status_code, expected_statuses(row, caller.credential)
    what = f"{caller.credential.name}: {row.method} {path}: {status}"
    if status not in expected:
        yield f"{what}, not {sorted(expected)}: {response.content[:160]!r}"
        return
    granted = status == row.ok and (row.needs.open or row.allows(caller.credential))
    wanted = [(granted and row.writes, "done"), (row.method != "GET" and status in (403, 422), "refused")]
    for is_wanted, outcome in wanted:
        found = [f"{entry.action} by {entry.actor_label}" for entry in left if entry.outcome == outcome]
        if len(found) != int(is_wanted):
            yield f"{what} left {found} {outcome}, not {int(is_wanted)}"
    if strangers := {entry.actor_label for entry in left if entry.actor_id != caller.actor_id}:
        yield f"{what}: its entries are under {strangers}"
