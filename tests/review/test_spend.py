"""Spend and saving by day and week, and the interval of an environment's cost per success."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies_app.models import Environment, Workload
from rollout_app.review import rollups
from rollout_app.review.environments import EnvironmentReview, interval_of_the_whole, review_environment
from tests.support import builders
from tests.support.callers import Caller
from tests.support.outcomes import outcome

NOW = datetime(2026, 11, 24, 15, 20, tzinfo=UTC)
DAY = timedelta(days=1)
Place = tuple[Environment, Workload]


@pytest.fixture
def place(db: None) -> Place:
    return builders.environment("production"), builders.workload("support")


def review(place: Place, days: int, owner: str | None = None) -> EnvironmentReview:
    rollups.refresh(NOW)
    return review_environment(place[0], days=days, now=NOW, owner=owner)


def test_the_days_add_up_and_show_the_saving(place: Place) -> None:
    for day in range(14):
        outcome(*place, NOW - day * DAY, tasks=100, cost=1_000 if day >= 7 else 600)
    found = review(place, 7)
    assert len(found.spend) == 7
    assert {(part.spend, part.saved, part.covered) for part in found.spend} == {(60_000, 40_000, 1.0)}
    assert sum(part.spend for part in found.spend) == found.whole.now.cost
    assert sum(part.saved or 0 for part in found.spend) == found.owners[0].saved


def test_a_long_period_is_shown_by_weeks(place: Place) -> None:
    for day in range(0, 60, 5):
        outcome(*place, NOW - day * DAY, tasks=10, cost=100)
    found = review(place, 30)
    assert [(part.last - part.first).days + 1 for part in found.spend] == [7, 7, 7, 7, 2]
    assert sum(part.spend for part in found.spend) == found.whole.now.cost


def test_the_saving_of_a_new_endpoint_is_unknown(place: Place) -> None:
    outcome(*place, NOW - 9 * DAY, tasks=100, cost=1_000, endpoint="/old")
    outcome(*place, NOW - DAY, tasks=100, cost=500, endpoint="/new")
    outcome(*place, NOW - DAY, tasks=100, cost=500, endpoint="/old")
    parts = {(NOW.date() - part.first).days: part for part in review(place, 7).spend}
    assert (parts[1].spend, parts[1].saved, parts[1].covered) == (100_000, 50_000, 0.5)
    assert (parts[0].spend, parts[0].saved, parts[0].covered) == (0, None, 0)


def test_without_an_earlier_period_there_is_no_saving(place: Place) -> None:
    outcome(*place, NOW - DAY, tasks=100, cost=500)
    assert [part.saved for part in review(place, 7).spend] == [None] * 7


def test_the_interval_covers_these_tasks_or_is_missing(place: Place) -> None:
    for day in range(3):
        for model, cost in (("small", 500), ("large", 1_500)):
            outcome(*place, NOW - day * DAY, tasks=200, cost=cost, model=model)
    found = review(place, 7)
    low, high = interval_of_the_whole(place[0], found, None)
    assert low is not None and high is not None and low < (found.whole.now.cost_per_success or 0) < high
    owner = place[1].owner.name
    assert interval_of_the_whole(place[0], review(place, 7, owner), owner) == (low, high)
    other = builders.team("elsewhere")
    Workload.objects.filter(pk=place[1].pk).update(owner=other)
    assert interval_of_the_whole(place[0], review(place, 7, "elsewhere"), "elsewhere") == (None, None)


def test_the_api_returns_it(place: Place) -> None:
    answer: Any = Caller("viewer")("GET", "environments/production/review?days=30").json()
    assert len(answer["by_time"]) == 5 and answer["by_time"][0]["saved_nusd"] is None
    assert answer["now"]["cost_per_success_low_nusd"] is None


def test_spend_is_available_by_owner_as_json_and_csv(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    other = builders.workload("search")
    for day in range(14):
        outcome(*place, NOW - day * DAY, tasks=100, cost=1_000 if day >= 7 else 600)
    outcome(place[0], other, NOW - DAY, tasks=10, cost=50)
    rollups.refresh(NOW)
    monkeypatch.setattr("rollout_app.review.api.clock.now", lambda: NOW)
    caller, path = Caller("viewer"), "environments/production/spend"
    told: Any = caller("GET", f"{path}?days=7").json()
    text = caller("GET", f"{path}.csv?days=7").content.decode()
    weekly: Any = caller("GET", f"{path}?days=7&by=week").json()
    refused = [caller("GET", f"{path}?{asked}") for asked in ("days=32&by=day", "by=year")]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert told["by"] == "day" and len(told["by_time"]) == 7 and len(told["by_owner"]) == 14
    assert len(rows) == 21 and {row["owner"] for row in rows} == {"", place[1].owner.name, other.owner.name}
    for name in ("spend_nusd", "saved_nusd"):
        assert [row[name] for row in rows if not row["owner"]] == [
            str(part[name]) for part in told["by_time"]
        ]
        mine = [part for part in told["by_owner"] if part["owner"] == place[1].owner.name]
        assert [row[name] for row in rows if row["owner"] == place[1].owner.name] == [
            str(p[name]) for p in mine
        ]
    assert sum(part["spend_nusd"] for part in told["by_owner"]) == sum(
        part["spend_nusd"] for part in told["by_time"]
    )
    assert [part["spend_nusd"] for part in weekly["by_time"]] == [7 * 60_000 + 500]
    assert {part["saved_nusd"] for part in told["by_owner"] if part["owner"] == other.owner.name} == {None}
    assert [answer.status_code for answer in refused] == [422, 422]
