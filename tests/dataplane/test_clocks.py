"""Only the database's clock counts. A router or gateway with a wrong clock loses nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client

from controlplane.core import clock
from policies_app.fleet.readback import has_left
from policies_app.models import Router
from rollout_app.models import AcceptedBatch, ArmTotals
from tests.support.plane import Plane, Served, until
from tests.support.reports import batch, bucket, event

OUTCOMES, EVENTS = "/router/v1/outcomes", "/router/v1/events"


def minute(ahead: timedelta) -> str:
    """Return a minute ahead of now. (`reports.NOW` is when the tests began, and may be minutes ago.)"""
    return (datetime.now(UTC) + ahead).replace(second=0, microsecond=0).isoformat()


def test_it_refuses_future_minutes_only_for_now(plane: Plane, served: Served) -> None:
    """F8: with a router's clock ten minutes ahead, everything was refused for good, "422 invalid_input"."""
    sent = batch(bucket(served.assignment), bucket(served.assignment, minute=minute(timedelta(minutes=10))))
    answer = plane.post(OUTCOMES, served.key, sent, pointsman_router="r-ahead")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "clock_ahead", "30")
    server_time = datetime.fromisoformat(answer.json()["server_time"])
    assert abs(server_time - datetime.now(UTC)) < timedelta(minutes=1)
    assert not ArmTotals.objects.exists()

    row = until(lambda: Router.objects.filter(instance="r-ahead").first())
    assert isinstance(row, Router)
    assert 8 * 60 < (row.clock_ahead_s or 0) < 11 * 60


def test_a_report_from_its_spool_does_not_bring_a_router_back(plane: Plane, served: Served) -> None:
    """The next process sends what a dead one left, in its name: that one counted as alive, and was awaited."""
    environment, long_ago = served.environment, clock.now() - timedelta(hours=1)
    fields: dict[str, Any] = {"polled_at": long_ago, "epoch": environment.epoch, "revision": 1}
    Router.objects.create(environment=environment, instance="died", **fields)
    Router.objects.create(environment=environment, instance="left", left_at=long_ago, **fields)
    leaving = {"router": "leaves", "revision": 1, "epoch": environment.epoch, "state": "leaving"}
    assert plane.post("/router/v1/acks", served.key, leaving, pointsman_router="leaves").status == 204
    sent = batch(bucket(served.assignment, minute=minute(timedelta(minutes=10))))
    for name in ("died", "left", "leaves"):
        assert plane.post(OUTCOMES, served.key, sent, pointsman_router=name).status == 503
    until(lambda: Router.objects.filter(clock_ahead_s__isnull=False).count() == 3)
    rows = {row.instance: row for row in Router.objects.all()}
    assert rows["died"].polled_at == rows["left"].polled_at == rows["left"].left_at == long_ago
    assert has_left(rows["leaves"], clock.now())


def test_it_refuses_contradictory_reports_whatever_the_clock(plane: Plane, served: Served) -> None:
    wrong = bucket(served.assignment, minute=minute(timedelta(minutes=10)), tasks=1)
    assert plane.post(OUTCOMES, served.key, batch(wrong)).status == 422


def test_it_treats_future_events_the_same_way(plane: Plane, served: Served) -> None:
    at = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    answer = plane.post(EVENTS, served.key, {"events": [event(served.assignment, at=at)]})
    assert (answer.status, answer.code) == (503, "clock_ahead")


@pytest.mark.parametrize("days", [-1, 1])
def test_a_gateway_with_a_wrong_clock_drops_nothing(plane: Plane, served: Served, days: int) -> None:
    """F9: with a gateway a day behind, every outcome of healthy routers was "ahead"."""
    with time_machine.travel(datetime.now(UTC) + timedelta(days=days)):
        answer = plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    assert answer.status == 202
    assert abs(AcceptedBatch.objects.get().at - datetime.now(UTC)) < timedelta(minutes=1)


def test_it_accepts_nothing_before_it_knows_the_databases_time(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "running", clock.RunningClock())
    monkeypatch.setattr(clock.RunningClock, "sync", lambda self: None)
    answer = plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")


def test_the_fleet_page_names_a_router_whose_clock_is_ahead(served: Served, admin_client: Client) -> None:
    now = clock.now()
    common: dict[str, Any] = {"environment": served.environment, "polled_at": now, "clock_ahead_s": 600}
    Router.objects.create(**common, instance="r-1", clock_ahead_at=now)
    page = admin_client.get(f"/console/fleet/{served.environment.name}/").content.decode()
    assert "Its clock is 10\u202fmin ahead" in page
    Router.objects.update(clock_ahead_at=now - timedelta(minutes=16))
    page = admin_client.get(f"/console/fleet/{served.environment.name}/").content.decode()
    assert "Its clock is" not in page


def test_the_running_clock_follows_the_database(db: None) -> None:
    running = clock.RunningClock()
    assert running.now() is None
    with time_machine.travel(datetime.now(UTC) - timedelta(days=1)):
        running.sync()
        here = running.now()
    assert here is not None
    assert abs(here - clock.now()) < timedelta(seconds=5)
