"""Authentication at every endpoint of the data plane, with every kind of bad key."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.access import actions as keys
from controlplane.access.models import Key
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from tests.support.plane import PATIENCE_S, Plane, Served, key_row, router_key, until
from tests.support.reports import batch, bucket

ENDPOINTS = [
    ("GET", "snapshot"),
    ("POST", "acks"),
    ("POST", "outcomes"),
    ("POST", "events"),
    ("POST", "feedback"),
]


@pytest.mark.parametrize(("method", "endpoint"), ENDPOINTS)
@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer ", "Bearer pmr_x", "Bearer \xff"])
def test_it_requires_a_router_key(plane: Plane, method: str, endpoint: str, header: str) -> None:
    headers: dict[str, Any] = {"authorization": header} if header else {}
    answer = plane.begin(f"/router/v1/{endpoint}", method=method, body=b"{}", **headers).result(PATIENCE_S)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert "Bearer" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(("method", "endpoint"), ENDPOINTS)
def test_it_refuses_an_admin_key(plane: Plane, served: Served, method: str, endpoint: str) -> None:
    _, text = keys.issue_key("admin", served.environment.name, "a script", actor=SYSTEM, scopes=["viewer"])
    answer = plane.begin(f"/router/v1/{endpoint}", text, method=method, body=b"{}").result(PATIENCE_S)
    assert (answer.status, answer.code) == (403, "wrong_key_kind")


def test_it_accepts_a_key_issued_a_moment_ago(plane: Plane, served: Served) -> None:
    assert plane.snapshot(router_key(served.environment.name)).status == 200


def test_it_refuses_a_well_formed_key_that_nobody_issued(plane: Plane, served: Served) -> None:
    from controlplane.access.keys import new_key_text

    answer = plane.snapshot(new_key_text("router", served.environment.name)[1])
    assert (answer.status, answer.code) == (401, "unauthenticated")


def test_it_refuses_a_revoked_key_without_a_notice(plane: Plane, served: Served) -> None:
    assert plane.snapshot(served.key).status == 200
    keys.revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
    until(lambda: plane.snapshot(served.key).status == 401)
    assert plane.snapshot(served.key).code == "key_revoked"


def test_it_refuses_an_expired_key(plane: Plane, served: Served) -> None:
    assert plane.snapshot(served.key).status == 200
    Key.objects.update(expires_at=clock.now() + timedelta(seconds=0.3))
    until(lambda: plane.snapshot(served.key).status == 401)
    assert plane.snapshot(served.key).code == "key_expired"


def test_it_serves_each_key_its_own_environment(plane: Plane, served: Served) -> None:
    from tests.support import builders

    other = builders.environment()
    answer = plane.snapshot(router_key(other.name))
    assert answer.json()["environment"] == other.name
    assert answer.json()["workloads"] == {}


def test_it_refuses_reports_on_workloads_hidden_from_the_key(plane: Plane, served: Served) -> None:
    limited = router_key(served.environment.name, workloads=["something-else"])
    answer = plane.post("/router/v1/outcomes", limited, batch(bucket(served.assignment)))
    assert answer.status == 422
    assert answer.json()["problems"][0]["field"] == "workload"


def test_it_records_when_a_key_was_used(plane: Plane, served: Served) -> None:
    plane.snapshot(served.key)
    until(lambda: key_row(served.key).last_used_at)
