"""The number of queries of the workload's page, with several environments and rollouts."""

from typing import Any

from django.urls import reverse

from policies_app.models import Environment, Workload
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People, proposed, running


def test_the_workloads_page_needs_few_queries(
    people: People, summaries: Workload, production: Environment, django_assert_max_num_queries: Any
) -> None:
    for name in ("alpha", "beta", "gamma"):
        place = builders.environment(name)
        builders.served(place, summaries)
        builders.version(summaries)
        proposed(summaries, place)
    builders.version(summaries)
    last = builders.environment("last")
    builders.served(last, summaries)
    builders.version(summaries)
    running(summaries, last)
    client = people("maria", "editor", "operator", team=summaries.owner)
    with django_assert_max_num_queries(24):
        page = text(client.get(reverse("console:workload", args=["summaries"])))
    assert "production" in page and "gamma" in page and "Rollouts" in page
