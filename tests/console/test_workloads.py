"""The list of workloads and the page of one."""

from typing import Any

import pytest
from django.urls import reverse

from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Environment, Workload
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People, running

LIST = "/console/workloads/"


def test_the_list_shows_served_versions_and_rollouts(
    people: People, summaries: Workload, production: Environment
) -> None:
    running(summaries, production)
    page = text(people("tom", "viewer").get(LIST))
    assert "summaries" in page
    assert "v1</a>" in page
    assert "→ v2 5\u202f%" in page


def test_the_list_shows_a_pin(people: People, summaries: Workload) -> None:
    actions.pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    page = text(people("tom", "viewer").get(LIST))
    assert "pinned: large" in page
    assert "incident 231" in page


@pytest.mark.parametrize(
    ("words", "found"), [("summ", True), ("nobody", False), ("SUMMARIES", True), ("summary", True)]
)
def test_the_list_is_searchable(people: People, summaries: Workload, words: str, found: bool) -> None:
    page = text(people("tom", "viewer").get(LIST, {"q": words}))
    assert ('href="/console/workloads/summaries/"' in page) is found
    assert ("Nothing matches" in page) is not found


def test_the_list_has_columns_only_for_visible_environments(people: People, summaries: Workload) -> None:
    builders.environment("staging")
    page = text(people("sam", "viewer", environment="staging").get(LIST))
    assert "staging</th>" in page
    assert "production</th>" not in page


def test_an_empty_list_shows_what_to_do(people: People) -> None:
    assert "No workload yet" in text(people("tom", "viewer").get(LIST))


def test_the_list_needs_few_queries_regardless_of_its_length(
    people: People, production: Environment, django_assert_max_num_queries: Any
) -> None:
    for _ in range(12):
        builders.served(production, builders.workload())
    client = people("tom", "viewer")
    with django_assert_max_num_queries(20):
        assert client.get(LIST).status_code == 200


def test_the_page_shows_versions_margins_and_rollouts(
    people: People, summaries: Workload, production: Environment, django_assert_max_num_queries: Any
) -> None:
    rollout = running(summaries, production)
    client = people("tom", "viewer")
    with django_assert_max_num_queries(23):
        page = text(client.get(reverse("console:workload", args=["summaries"])))
    assert "production (candidate)" in page
    assert "2.0\u202fpoints" in page  # the margin of failure
    assert reverse("console:rollout", args=[rollout.pk]) in page
    assert "New version" not in page  # a viewer cannot write one
    assert "no operator role" in page


def test_the_facts_are_right_where_little_is_allowed_or_limited(people: People, summaries: Workload) -> None:
    Workload.objects.update(retryable=False, escalatable=False, batchable=True, mirror_budget_usd=None)
    page = text(people("tom", "viewer").get(reverse("console:workload", args=["summaries"])))
    assert "<dt>May be</dt><dd>batched</dd>" in page
    assert "<dt>Mirror budget</dt><dd>no limit</dd>" in page


def test_the_page_offers_only_permitted_actions(people: People, summaries: Workload) -> None:
    page = text(
        people("maria", "editor", "operator", team=summaries.owner).get(
            reverse("console:workload", args=["summaries"])
        )
    )
    assert "New version" in page
    assert "Pin a model" in page
    assert "Propose a rollout" in page


def test_an_unknown_workload_is_not_found(people: People) -> None:
    response = people("tom", "viewer").get(reverse("console:workload", args=["nope"]))
    assert response.status_code == 404
    assert "There is no workload" in text(response)


def test_without_a_version_it_offers_no_action_that_needs_one(
    people: People, production: Environment
) -> None:
    workload = builders.workload("triage")
    client = people("maria", "editor", "operator", team=workload.owner)
    page = text(client.get(reverse("console:workload", args=["triage"])))
    assert "New version" in page and "no version to serve yet" in page
    for offer in ("Propose a rollout", "Playground", "Backtest", "Serve a version"):
        assert offer not in page
    serve = reverse("console:serve", args=["triage", production.name])
    assert "triage has no version yet" in text(client.get(serve))
