"""Every list of the API with forged cursors (404, never a 500) and with its own."""

from base64 import b64encode
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.trust.matrix import credentials, world
from tests.trust.matrix.asking import CREDENTIALS, ROWS

pytestmark = pytest.mark.django_db
LISTS = {
    "api/v1/keys", "api/v1/memberships", "api/v1/teams", "api/v1/audit", "api/v1/change-requests",
    "api/v1/environments", "api/v1/environments/<slug:environment>/assignments", "api/v1/workloads",
    "api/v1/workloads/<slug:workload>/versions", "api/v1/models", "api/v1/plans", "api/v1/rollouts",
    "api/v1/workloads/<slug:workload>/guardrails",
    *(f"api/v1/rollouts/<uuid:rollout>/{name}" for name in ("transitions", "approvals", "verdicts")),
}  # fmt: skip
POSITIONS = [
    "abc", "\0", "", "-1", "1e9", "9" * 30, "9" * 5000, "2026-01-01", "00000000-0000-0000-0000-000000000000", "%",
    "'; --", "\u0663", "x" * 10_000, "None", "[]",
]  # fmt: skip


def _cursor(**parts: str) -> str:
    return b64encode(urlencode(parts).encode()).decode()


CURSORS = [
    *(_cursor(p=position, **more) for position in POSITIONS for more in ({}, {"r": "1"})),
    *(_cursor(p="1", o=offset) for offset in ("-1", "x", "9" * 30, "1001")),
    *("zzz", "%", "=", "cD1hYmM", "cD1hYmM==", "\u00e9", "p=1", "/" * 40),
]


def test_a_forged_cursor_is_a_404() -> None:
    made = world.make()
    caller = credentials.make(next(one for one in CREDENTIALS if one.name == "superuser"), made.team)
    seen, failed = set(), []
    for row in ROWS:
        if row.method != "GET" or not row.template.startswith("api/"):
            continue
        path = f"/api/v1/{row.request(made)[0]}"
        first = caller.client.get(path)
        if first["Content-Type"] != "application/json" or "next" not in first.json():
            continue
        seen.add(row.template)
        for cursor in CURSORS:
            answer = caller.client.get(f"{path}?limit=1&cursor={quote(cursor)}")
            if answer.status_code not in (200, 404) or (
                answer.status_code == 200 and "items" not in answer.json()
            ):
                failed.append(f"{path} from {cursor[:40]}: {answer.status_code}")
    assert failed == []
    assert seen >= LISTS, f"not a list any more: {LISTS - seen}"


def test_its_own_cursor_continues_the_list() -> None:
    made = world.make()
    caller = credentials.make(next(one for one in CREDENTIALS if one.name == "superuser"), made.team)
    for name in ("rollouts", "workloads", "models", "audit", "teams"):
        whole = caller.client.get(f"/api/v1/{name}?limit=200").json()["items"]
        found: list[Any] = []
        link = f"/api/v1/{name}?limit=3"
        while link:
            answer = caller.client.get(link).json()
            found, link = found + answer["items"], answer["next"]
        assert found == whole, name
