"""The fleet page: which routers applied which revision, and which lag behind."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Environment, Published, Router, Workload
from tests.support.pages import text
from tests.support.people import People
from tests.support.places import listening

FLEET = "/console/fleet/production/"


@pytest.fixture
def routers(summaries: Workload, production: Environment) -> None:
    now = timezone.now()
    listening(now - timedelta(days=1), now)
    production.revision = 5
    production.save(update_fields=["revision"])
    served = summaries.assignments.get().baseline.digest
    common = {"environment": production, "epoch": production.epoch, "applied_at": now}
    Router.objects.create(**common, instance="current", revision=5, polled_at=now)
    Router.objects.create(**common, instance="behind", revision=3, polled_at=now)
    Router.objects.create(**common, instance="silent", revision=5, polled_at=now - timedelta(minutes=3))
    Router.objects.create(**common, instance="gone", revision=1, polled_at=now - timedelta(days=2))
    rejected = {"summaries": {"digest": served, "error": "unknown field"}}
    Router.objects.create(**common, instance="refusing", revision=4, polled_at=now, rejected=rejected)


@pytest.mark.usefixtures("routers")
def test_it_counts_the_routers_that_still_poll(people: People, django_assert_max_num_queries: Any) -> None:
    client = people("tom", "viewer")
    with django_assert_max_num_queries(20):
        page = text(client.get(FLEET))
    assert "1 of 3" in page
    assert "gone" not in page
    for state in ("up to date", "behind", "silent", "rejecting"):
        assert f">{state}</span>" in page
    assert "refused summaries: unknown field" in page


@pytest.mark.usefixtures("routers")
@pytest.mark.parametrize("pinned_days_ago", [None, 3])
def test_it_reads_the_routers_once(
    people: People, summaries: Workload, production: Environment, pinned_days_ago: int | None
) -> None:
    """It read them twice. A pin from before needs those that have left the page, which does not list them."""
    client = people("tom", "viewer")
    if pinned_days_ago is not None:
        at = timezone.now() - timedelta(days=pinned_days_ago)
        production.assignments.update(pin_model="large", changed_at=at)
    with CaptureQueriesContext(connection) as queries:
        page = text(client.get(FLEET))
    assert sum('FROM "policies_app_router"' in query["sql"] for query in queries) == 1
    assert "1 of 3" in page
    assert ">gone<" not in page


@pytest.mark.usefixtures("routers")
def test_home_summarizes_it_in_one_line(people: People) -> None:
    page = text(people("tom", "viewer").get("/console/"))
    assert "1 of 3 routers" in page
    assert "1 document refused" in page


def test_its_fragment_is_returned_alone(people: People, production: Environment) -> None:
    page = text(people("tom", "viewer").get(FLEET, headers={"HX-Request": "true"}))
    assert "<html" not in page
    assert "No router to show" in page


def test_it_is_hidden_from_people_of_other_environments(people: People, production: Environment) -> None:
    assert people("sam", "admin", environment="staging").get(FLEET).status_code == 404


def test_without_an_environment_it_says_what_to_do(people: People) -> None:
    assert "No environment that you can see" in text(people("tom", "admin").get("/console/fleet/"))


def test_it_shows_the_state_of_the_bucket(people: People, production: Environment, settings: Any) -> None:
    client = people("tom", "viewer")
    assert "Published" not in text(client.get(FLEET))
    settings.SNAPSHOT_BUCKET = "snapshots"
    assert "Published" in text(client.get(FLEET))
    Published.objects.create(environment=production, revision=1, failures=3, error="AccessDenied: no")
    page = text(client.get(FLEET))
    assert "AccessDenied: no" in page


@pytest.mark.usefixtures("routers")
def test_it_shows_how_many_routers_follow_a_pin(
    people: People, summaries: Workload, production: Environment
) -> None:
    listening(until=timezone.now() + timedelta(days=1))
    pinned = actions.pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="small is down")
    Router.objects.filter(instance="current").update(revision=pinned.revision)
    client = people("tom", "viewer")
    for address in (FLEET, "/console/workloads/summaries/"):
        page = text(client.get(address))
        assert "pinned: large" in page
        assert "applied by 1 of 3 routers" in page
        assert "not yet: behind, refusing" in page


def test_it_is_paged(people: People, production: Environment) -> None:
    now = timezone.now()
    Router.objects.bulk_create(
        Router(environment=production, instance=f"r-{n:03}", epoch=production.epoch, polled_at=now)
        for n in range(120)
    )
    client = people("tom", "viewer")
    assert "r-099" in text(client.get(FLEET))
    second = text(client.get(FLEET, {"page": 2}))
    assert "r-099" not in second
    assert "r-100" in second


def test_it_omits_routers_that_signed_off(people: People, production: Environment) -> None:
    now = timezone.now()
    common = {"environment": production, "epoch": production.epoch, "polled_at": now}
    Router.objects.create(**common, instance="job-that-ended", left_at=now)
    assert "job-that-ended" not in text(people("tom", "viewer").get(FLEET))
