"""Pages of the review."""

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from controlplane.core import clock
from policies_app.models import Environment, Workload
from rollout_app.review import rollups
from tests.support.outcomes import outcome
from tests.support.pages import text
from tests.support.people import People, proposed, running

DAY = timedelta(days=1)


@pytest.fixture
def two_weeks(production: Environment, summaries: Workload) -> None:
    now = clock.now()
    outcome(production, summaries, now - 9 * DAY, cost=3_000_000, endpoint="/tickets", model="large")
    outcome(production, summaries, now - 2 * DAY, cost=1_000_000, endpoint="/tickets", model="small")
    rollups.refresh()


def test_the_page_of_an_environment_shows_the_largest_changes(
    people: People, two_weeks: None, summaries: Workload, django_assert_max_num_queries: Any
) -> None:
    client = people("tom", "viewer")
    with django_assert_max_num_queries(21):
        page = text(client.get(reverse("console:review"))).replace("\u202f", " ")
    assert "Spend and saving" in page and "By team" in page
    assert "between $0.00109 and $0.00109" in page or "between $0.00" in page
    assert f"summaries /tickets (team {summaries.owner.name}) moved 100 % of its tasks to small" in page
    assert reverse("console:workload_review", args=["production", "summaries"]) in page


def test_the_page_of_a_workload_explains_the_diagnosis(
    people: People, two_weeks: None, django_assert_max_num_queries: Any
) -> None:
    client = people("tom", "viewer")
    with django_assert_max_num_queries(24):
        page = text(client.get(reverse("console:workload_review", args=["production", "summaries"])))
    assert "At a constant mix of endpoints" in page and "/tickets" in page
    assert "Healthy" in page or "Unknown" in page


@pytest.mark.parametrize("days", ["", "1", "90", "x", "-1", "9999999999"])
def test_an_invalid_length_shows_a_week(people: People, two_weeks: None, days: str) -> None:
    assert people("tom", "viewer").get(reverse("console:review"), {"days": days}).status_code == 200


def test_pages_without_outcomes_say_so(people: People, production: Environment, summaries: Workload) -> None:
    client = people("tom", "viewer")
    assert "No outcomes in this period" in text(client.get(reverse("console:review")))
    address = reverse("console:workload_review", args=["production", "summaries"])
    assert "No outcomes in this period" in text(client.get(address))


def test_the_review_of_a_rollout_is_available_once_it_has_started(
    people: People, production: Environment, summaries: Workload
) -> None:
    client = people("tom", "viewer")
    rollout = proposed(summaries, production)
    address = reverse("console:rollout_review", args=[rollout.pk])
    assert "There is nothing to review yet" in text(client.get(address))
    rollout = running(summaries, production)
    address = reverse("console:rollout_review", args=[rollout.pk])
    assert address in text(client.get(reverse("console:rollout", args=[rollout.pk])))
    assert "in the same minutes" in text(client.get(address))


def test_other_environments_are_hidden(people: People, two_weeks: None) -> None:
    client = people("sam", "admin", environment="staging")
    assert client.get(reverse("console:review_of", args=["production"])).status_code == 404
