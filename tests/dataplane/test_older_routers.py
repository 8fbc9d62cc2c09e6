"""Routers that do not send newer fields: the missing values are unknown, and the fleet page says so."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from controlplane.core import clock
from policies_app.fleet.buffer import FleetBuffer
from policies_app.fleet.writer import flush
from policies_app.models import Router
from rollout_app.models import ArmTotals
from tests.support.plane import Plane, Served, until
from tests.support.reports import batch, bucket, event

OUTCOMES, EVENTS = "/router/v1/outcomes", "/router/v1/events"
SHADOW = {"decisions": 118, "agreed": 100, "candidate_cost_nusd": 5_000, "baseline_cost_nusd": 9_000}
WORDS = "It does not report its decisions"


def shadow(served: Served, **changes: Any) -> dict[str, Any]:
    return bucket(served.assignment, shadow=SHADOW | changes)


def test_it_stores_for_how_many_decisions_the_cost_is_known(plane: Plane, served: Served) -> None:
    told = shadow(served, candidate_priced=118, baseline_priced=90)
    assert plane.post(OUTCOMES, served.key, batch(told)).status == 202
    assert plane.post(OUTCOMES, served.key, batch(told)).status == 202
    row = ArmTotals.objects.get()
    assert (row.shadow["candidate_priced"], row.shadow["baseline_priced"]) == (236, 180)


@pytest.mark.parametrize("older_first", [True, False])
def test_decisions_of_a_router_that_does_not_report_it_count_as_not_priced(
    plane: Plane, served: Served, older_first: bool
) -> None:
    """Regression: they erased the counts of the others, so "0 of 118 priced" became "unknown", and passed."""
    newer = {
        "candidate_priced": 118,
        "baseline_priced": 110,
        "candidate_cost_nusd": 7,
        "baseline_cost_nusd": 8,
    }
    told = [shadow(served), shadow(served, **newer)]
    for one in told if older_first else reversed(told):
        assert plane.post(OUTCOMES, served.key, batch(one)).status == 202
    row = ArmTotals.objects.get()
    assert {name: row.shadow[name] for name in newer} == newer  # its costs stay out of both sums
    assert (row.shadow["decisions"], row.shadow["agreed"]) == (236, 200)


def test_a_candidate_without_any_cost_is_not_cheap(plane: Plane, served: Served) -> None:
    """One of two older routers does not know what the candidate would cost."""
    for one in (shadow(served), shadow(served, candidate_cost_nusd=0)):
        assert plane.post(OUTCOMES, served.key, batch(one)).status == 202
    row = ArmTotals.objects.get()
    assert (row.shadow["candidate_cost_nusd"], row.shadow["baseline_cost_nusd"]) == (5_000, 9_000)


@pytest.mark.parametrize("name", ["candidate_priced", "baseline_priced"])
def test_it_refuses_more_known_costs_than_decisions(plane: Plane, served: Served, name: str) -> None:
    assert plane.post(OUTCOMES, served.key, batch(shadow(served, **{name: 119}))).status == 422


def test_a_router_that_omits_its_decisions_is_recorded_as_soon_as_it_has_a_row(
    plane: Plane, served: Served
) -> None:
    Router.objects.create(environment=served.environment, instance="r-old", polled_at=clock.now())
    for _ in range(2):
        sent = batch(bucket(served.assignment))
        assert plane.post(OUTCOMES, served.key, sent, pointsman_router="r-old").status == 202
    until(Router.objects.filter(instance="r-old", reported_partly_at__isnull=False).exists)


def test_a_router_that_sends_single_events_is_recorded_too(plane: Plane, served: Served) -> None:
    Router.objects.create(environment=served.environment, instance="r-events", polled_at=clock.now())
    sent = {"events": [event(served.assignment)]}
    assert plane.post(EVENTS, served.key, sent, pointsman_router="r-events").status == 202
    until(Router.objects.filter(instance="r-events", reported_partly_at__isnull=False).exists)


def test_it_is_written_once_an_hour_and_only_for_a_router_with_a_row(served: Served) -> None:
    heard = FleetBuffer()
    heard.reported_partly(served.environment.pk, "r-1")
    flush(heard)  # there is no row yet
    row = Router.objects.create(environment=served.environment, instance="r-1", polled_at=clock.now())
    heard.reported_partly(served.environment.pk, "r-1")
    flush(heard)
    row.refresh_from_db()
    first = row.reported_partly_at
    assert first is not None
    heard.reported_partly(served.environment.pk, "r-1")
    flush(heard)
    row.refresh_from_db()
    assert row.reported_partly_at == first


def test_the_fleet_page_shows_it_once_per_router(served: Served, admin_client: Client) -> None:
    now = clock.now()
    common: dict[str, Any] = {"environment": served.environment, "polled_at": now}
    Router.objects.create(**common, instance="r-old", reported_partly_at=now - timedelta(minutes=50))
    Router.objects.create(**common, instance="r-new")
    Router.objects.create(**common, instance="r-updated", reported_partly_at=now - timedelta(hours=3))
    page = admin_client.get(f"/console/fleet/{served.environment.name}/").content.decode()
    assert page.count(WORDS) == 1
