"""The home page's stories: what the rollouts of this week saved, with its interval, or why they were rolled back."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse

from controlplane import home
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.evidence_report import realised
from rollout_app.models import Rollout
from rollout_app.review import rollups
from tests.support import builders
from tests.support.outcomes import outcome
from tests.support.pages import text
from tests.support.people import People, actor_of, running

SPEND = "console:spend"


def completed(workload: Workload, production: Environment, *, days: float = 2) -> Rollout:
    """A rollout that completed so many days ago, an hour after it started."""
    rollout = running(workload, production)
    while rollout.stage < len(rollout.stages) - 1:
        rollout = actions.advance_rollout(rollout, actor=SYSTEM, reason="on")
    rollout = actions.complete_rollout(rollout, actor=SYSTEM, reason="done")
    ended = clock.now() - timedelta(days=days)
    Rollout.objects.filter(pk=rollout.pk).update(started_at=ended - timedelta(hours=1), ended_at=ended)
    rollout.refresh_from_db()
    return rollout


def traffic(rollout: Rollout, *, cost_after: int) -> None:
    assert rollout.started_at and rollout.ended_at
    place = rollout.environment, rollout.workload
    for day in range(1, 8):
        outcome(*place, _minute(rollout.started_at - timedelta(days=day)), cost=1_000_000, tasks=500)
    for hour in range(1, 40):
        at = _minute(rollout.ended_at + timedelta(hours=hour))
        outcome(*place, at, cost=cost_after, tasks=100, version=2)
    rollups.refresh()


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def stories(people: People) -> str:
    return text(people("tom", "viewer").get(reverse(SPEND))).replace("\u202f", " ")


def test_a_completed_rollout_shows_its_saving_with_an_interval(
    people: People, summaries: Workload, production: Environment
) -> None:
    traffic(completed(summaries, production), cost_after=600_000)
    page = stories(people)
    assert "Results of this week's rollouts" in page
    assert "saved (between $" in page and "since it completed, compared with the week before" in page


def test_a_difference_that_may_be_chance_is_not_called_a_saving(
    people: People, summaries: Workload, production: Environment
) -> None:
    traffic(completed(summaries, production), cost_after=999_000)
    assert "It is unclear whether it saved anything (between −$" in stories(people)


def test_without_later_tasks_the_saving_is_unknown(
    people: People, summaries: Workload, production: Environment
) -> None:
    completed(summaries, production)
    assert "is not known yet: it has had 0 tasks" in stories(people)


def test_a_rollback_shows_its_reason(people: People, summaries: Workload, production: Environment) -> None:
    rollout = running(summaries, production)
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="failures +12.4 points")
    actions.confirm_rolled_back(rollout, actor=SYSTEM, reason="all", readback={"confirmed": 0, "of": 0})
    assert "failures +12.4 points" in stories(people)


def test_stories_of_invisible_environments_are_hidden(
    people: People, summaries: Workload, production: Environment
) -> None:
    completed(summaries, production)
    page = people("sid", "viewer", environment="staging").get(reverse(SPEND))
    assert "week's rollouts" not in text(page)


@pytest.mark.parametrize("failing", ["read_rollouts", "saving"])
def test_a_story_that_cannot_be_computed_is_reported(
    people: People,
    summaries: Workload,
    production: Environment,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    completed(summaries, production)
    monkeypatch.setattr(realised, failing, broken)
    assert "could not be computed" in stories(people)


@pytest.mark.parametrize(("page", "most"), [("rollout", 32), ("rollout_review", 28)])
def test_the_pages_of_a_completed_rollout_need_few_queries(
    people: People,
    summaries: Workload,
    production: Environment,
    django_assert_max_num_queries: Any,
    page: str,
    most: int,
) -> None:
    """Whatever the length of the time since then: its weeks are read together."""
    rollout = completed(summaries, production, days=29)
    traffic(rollout, cost_after=600_000)
    client = people("tom", "viewer")
    with django_assert_max_num_queries(most):
        shown = text(client.get(reverse(f"console:{page}", args=[rollout.pk])))
    assert "Cost per success after completion: −40.0" in shown


def test_many_stories_need_as_many_queries_as_one(
    people: People,
    production: Environment,
    django_assert_max_num_queries: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(5):
        workload = builders.workload(f"workload-{number}")
        builders.served(production, workload)
        builders.version(workload, actor=actor_of("maria"))
        rollout = completed(workload, production)
        assert rollout.started_at
        for arm, cost in (("baseline", 1_000_000), ("candidate", 600_000)):
            at, version = _minute(rollout.started_at + timedelta(minutes=5)), 1 + (arm == "candidate")
            outcome(
                production,
                workload,
                at,
                cost=cost,
                tasks=500,
                rollout=str(rollout.pk),
                stage=1,
                arm=arm,
                version=version,
            )
        traffic(rollout, cost_after=600_000)
    client = people("tom", "viewer")
    with django_assert_max_num_queries(22):
        page = text(client.get(reverse(SPEND)))
    assert page.count("since it completed") == 5 and page.count("while it ran") == 5
    assert "are shown" not in page
    builders.environment("staging")
    monkeypatch.setattr(home, "_STORIES", 4)
    monkeypatch.setattr(home, "_WEEKS_OF", 1)
    page = text(client.get(reverse(SPEND)))
    assert page.count("since it completed") == 4 and "The newest 4 are shown" in page
    assert "Costs are shown for the first 1 environment;" in page


def test_a_week_without_known_costs_is_not_free(
    people: People, summaries: Workload, production: Environment
) -> None:
    """Regression: the home page said "$0.00" and "same as the week before"."""
    now = _minute(clock.now())
    outcome(production, summaries, now - timedelta(days=8), cost=1_000_000)
    outcome(production, summaries, now - timedelta(hours=1), priced=0)
    rollups.refresh()
    page = stories(people)
    assert "$0.00" not in page and "same as the week before" not in page
    assert "no task has a known cost" in page


def test_a_week_of_other_endpoints_is_not_the_same(
    people: People, summaries: Workload, production: Environment
) -> None:
    now = _minute(clock.now())
    outcome(production, summaries, now - timedelta(days=8), endpoint="/v1", cost=1_000_000)
    outcome(production, summaries, now - timedelta(hours=1), endpoint="/v2", cost=5_000_000)
    rollups.refresh()
    page = stories(people)
    assert "same as the week before" not in page
    assert "no endpoint has a known cost in both weeks" in page
