"""Spend and saving by day and week, and the interval of an environment's cost per success."""

import csv
import io
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies_app.models import Environment, Workload
from rollout_app.models import OutcomeBucket
from rollout_app.review import rollups
from rollout_app.review.attribution import KnownEffects
from rollout_app.review.environments import (
    EnvironmentReview,
    SpendPart,
    figures_of_the_whole,
    review_environment,
    spend_by_owner,
    spend_by_time,
)
from rollout_app.review.models import RunningOutcomes
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


def spent(parts: Sequence[SpendPart]) -> int:
    return sum(part.spend or 0 for part in parts)


def test_the_days_add_up_and_show_the_saving(place: Place) -> None:
    for day in range(14):
        outcome(*place, NOW - day * DAY, tasks=100, cost=1_000 if day >= 7 else 600)
    found = review(place, 7)
    parts = spend_by_time(found)
    assert len(parts) == 7
    assert {(part.spend, part.saved, part.covered) for part in parts} == {(60_000, 40_000, 1.0)}
    assert spent(parts) == found.whole.now.cost
    assert sum(part.saved or 0 for part in parts) == found.owners[0].saved


def test_a_long_period_is_shown_by_weeks(place: Place) -> None:
    for day in range(0, 60, 5):
        outcome(*place, NOW - day * DAY, tasks=10, cost=100)
    found = review(place, 30)
    parts = spend_by_time(found)
    assert [(part.last - part.first).days + 1 for part in parts] == [7, 7, 7, 7, 2]
    assert spent(parts) == found.whole.now.cost


def test_the_saving_of_a_new_endpoint_is_unknown(place: Place) -> None:
    outcome(*place, NOW - 9 * DAY, tasks=100, cost=1_000, endpoint="/old")
    outcome(*place, NOW - DAY, tasks=100, cost=500, endpoint="/new")
    outcome(*place, NOW - DAY, tasks=100, cost=500, endpoint="/old")
    parts = {(NOW.date() - part.first).days: part for part in spend_by_time(review(place, 7))}
    assert (parts[1].spend, parts[1].saved, parts[1].covered) == (100_000, 50_000, 0.5)
    assert (parts[0].spend, parts[0].saved, parts[0].covered) == (0, None, 0)


def test_without_an_earlier_period_there_is_no_saving(place: Place) -> None:
    outcome(*place, NOW - DAY, tasks=100, cost=500)
    assert [part.saved for part in spend_by_time(review(place, 7))] == [None] * 7


def test_the_interval_covers_these_tasks_or_is_missing(place: Place) -> None:
    for day in range(3):
        for model, cost in (("small", 500), ("large", 1_500)):
            outcome(*place, NOW - day * DAY, tasks=200, cost=cost, model=model)
    found = review(place, 7)
    low, high, mirror_cost = figures_of_the_whole(found)
    assert low is not None and high is not None and low < (found.whole.now.cost_per_success or 0) < high
    owner = place[1].owner.name
    assert figures_of_the_whole(review(place, 7, owner)) == (low, high, mirror_cost)
    other = builders.team("elsewhere")
    Workload.objects.filter(pk=place[1].pk).update(owner=other)
    assert figures_of_the_whole(review(place, 7, "elsewhere")) == (None, None, None)


def test_the_interval_without_failures_at_constant_costs_has_a_width(place: Place) -> None:
    """Regression: 100 successes of 100 at one price gave an interval without width, as if none could ever fail."""
    outcome(*place, NOW - DAY, tasks=100, cost=1_000, success=1.0)
    low, high, _ = figures_of_the_whole(review(place, 7))
    assert low is not None and high is not None and low < 1_000 / 1.01 and high > 1_000 * 1.01


def test_the_sums_of_the_database_equal_those_of_the_outcomes(place: Place) -> None:
    """Spend, saving and the share with a known saving, by day and owner, compared with sums over the outcomes."""
    rng, other, now = random.Random(7), builders.workload("search", owner=builders.team("search")), NOW.date()
    for number in range(120):
        workload, endpoint, back = rng.choice((place[1], other)), rng.choice("abc"), rng.randrange(14)
        tasks, cost = rng.randrange(1, 40), rng.randrange(10**9)
        if (endpoint, back < 7) != ("c", False):  # an endpoint without an earlier period
            at = NOW - back * DAY
            outcome(place[0], workload, at, tasks=tasks, cost=cost, endpoint=endpoint, rule=f"r{number}")
    rollups.refresh(NOW)
    period, parts = spend_by_owner(place[0], days=7, now=NOW, step=1)
    sums: dict[Any, Any] = defaultdict(lambda: (0, 0))
    for b in OutcomeBucket.objects.select_related("workload__owner"):
        back = (now - b.minute.date()).days
        key = b.workload.owner.name, b.endpoint, back if back < 7 else "before"
        sums[key] = (sums[key][0] + b.cost_n, sums[key][1] + b.cost_sum)
    for owner in (place[1].owner.name, "search"):
        for back, part in zip(range(6, -1, -1), parts[owner], strict=True):
            cells = {e: (sums[owner, e, back], sums[owner, e, "before"]) for e in "abc"}
            known = {e: (now_, then) for e, (now_, then) in cells.items() if then[0]}
            would = sum(n * then[1] / then[0] for (n, _), then in known.values())
            covered = sum(cost for (_, cost), _ in known.values())
            assert part.spend == sum(cost for (_, cost), _ in cells.values())
            if any(n for (n, _), _ in known.values()):
                assert part.saved == pytest.approx(would - covered, abs=1)
                assert part.covered == covered / part.spend
            else:
                assert part.saved is None
    for whole, *some in zip(parts[""], parts[place[1].owner.name], parts["search"], strict=True):
        assert whole.spend == spent(some)
        assert whole.saved == pytest.approx(sum(part.saved or 0 for part in some), abs=1)
    assert [part.spend for part in spend_by_time(review(place, 7))] == [part.spend for part in parts[""]]


def test_days_that_are_not_rolled_up_yet_have_an_unknown_spend(place: Place) -> None:
    """The job has not run for two days. Earlier days are shown, and later ones are unknown, not free."""
    for day in range(14):
        outcome(*place, NOW - day * DAY, tasks=100, cost=1_000)
    rollups.refresh(NOW - 2 * DAY)
    RunningOutcomes.objects.filter(day__gt=(NOW - 2 * DAY).date()).delete()
    found = review_environment(place[0], days=7, now=NOW)
    parts = spend_by_time(found)
    assert [part.spend for part in parts] == [100_000] * 5 + [None] * 2
    assert [part.saved for part in parts] == [0] * 5 + [None] * 2
    assert (found.whole.now.tasks, found.whole.before.tasks) == (500, 700)
    late = review_environment(place[0], days=7, now=NOW + 30 * DAY)
    assert (late.whole.now.tasks, late.whole.before.tasks) == (0, 0)
    assert [part.spend for part in spend_by_time(late)] == [None] * 7


def test_pruned_days_are_not_part_of_the_period(place: Place, settings: Any) -> None:
    """Running sums include all earlier days, so a period whose first row is missing would include them, too."""
    settings.TOTALS_RETENTION_DAYS = 10
    for day in range(30):
        outcome(*place, NOW - day * DAY, tasks=100, cost=1_000)
    rollups.refresh(NOW)
    rollups.prune(NOW)
    found = review_environment(place[0], days=7, now=NOW)
    assert (found.whole.now.tasks, found.whole.before.tasks) == (700, 300)
    longer = review_environment(place[0], days=30, now=NOW)
    assert (longer.whole.now.tasks, longer.whole.before.tasks) == (1_000, 0)
    assert sum(part.spend or 0 for part in spend_by_time(longer)) == longer.whole.now.cost


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


def test_a_team_that_does_not_exist_has_not_spent_nothing(place: Place) -> None:
    """Regression: a typo in the team's name returned a spend of 0 for each day, not a 404 as the review does."""
    outcome(*place, NOW - DAY, tasks=100, cost=1_000)
    caller = Caller("viewer")
    for path in ("spend", "spend.csv", "review"):
        assert caller("GET", f"environments/production/{path}?owner=nobody").status_code == 404
    assert caller("GET", f"environments/production/spend?owner={place[1].owner.name}").status_code == 200


def test_days_before_the_first_known_one_have_an_unknown_spend(place: Place) -> None:
    """The instance has existed since yesterday. What the days before cost is unknown, not $0.00."""
    outcome(*place, NOW - DAY, tasks=100, cost=1_000)
    found = review(place, 7)
    assert [part.spend for part in spend_by_time(found)] == [None] * 5 + [100_000, 0]
    assert found.partial and found.comparable.known(found.whole.effects) == KnownEffects()


def test_a_day_whose_tasks_have_no_cost_has_an_unknown_spend(place: Place) -> None:
    outcome(*place, NOW - DAY, tasks=100, cost=1_000)
    outcome(*place, NOW, tasks=100, priced=0)
    assert [part.spend for part in spend_by_time(review(place, 7))][-2:] == [100_000, None]


def test_a_partly_known_earlier_period_compares_no_totals(place: Place) -> None:
    for day in range(8):
        outcome(*place, NOW - day * DAY, tasks=100, cost=1_000 if day == 7 else 600)
    found = review(place, 7)
    told = found.comparable.known(found.whole.effects)
    assert (told.total, told.volume) == (None, None)
    assert told.behaviour == -7 * 40_000


def test_the_api_says_null_for_what_is_unknown(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(*place, NOW - DAY, tasks=100, cost=1_000)
    rollups.refresh(NOW)
    monkeypatch.setattr("rollout_app.review.api.clock.now", lambda: NOW)
    builders.served(*place)
    caller, path = Caller("viewer"), "environments/production/review"
    told: Any = caller("GET", path).json()
    one: Any = caller("GET", f"{path}/{place[1].name}").json()
    rows = list(csv.DictReader(io.StringIO(caller("GET", f"{path}.csv").content.decode())))
    for answer in (told, told["by_workload"][0], one):
        assert answer["before"]["cost_nusd"] is None and set(answer["effects"].values()) == {None}
        assert answer["now"]["attempts_per_task"] == 1.0
    assert rows[0]["before_cost_nusd"] == rows[0]["effect_mix_nusd"] == ""
    assert rows[0]["now_attempts_per_task"] == "1.0"
    assert [row["spend_nusd"] for row in rows if row["level"] == "time"] == [""] * 5 + ["100000", "0"]


def test_the_cost_of_mirrored_requests_is_separate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = {"n": 10, "both": 10, "candidate_cost_nusd": 7_000, "baseline_cost_nusd": 9_000}
    outcome(*place, NOW - DAY, tasks=100, cost=1_000, mirror=mirror)
    rollups.refresh(NOW)
    monkeypatch.setattr("rollout_app.review.api.clock.now", lambda: NOW)
    builders.served(*place)
    caller, path = Caller("viewer"), "environments/production/review"
    told, one = caller("GET", path).json(), caller("GET", f"{path}/{place[1].name}").json()
    for answer in (told, one):
        assert (answer["now"]["cost_nusd"], answer["now"]["mirror_cost_nusd"]) == (100_000, 7_000)
        assert answer["before"]["mirror_cost_nusd"] is None
    rows = list(csv.DictReader(io.StringIO(caller("GET", f"{path}.csv").content.decode())))
    assert rows[0]["now_mirror_cost_nusd"] == "7000"


def test_mirrored_requests_without_a_cost_were_not_free(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: their cost was 0 in the reviews, and null in the shadow report of the same rollout."""
    outcome(*place, NOW - DAY, tasks=100, cost=1_000, mirror={"n": 10, "both": 10})
    rollups.refresh(NOW)
    monkeypatch.setattr("rollout_app.review.api.clock.now", lambda: NOW)
    builders.served(*place)
    caller, path = Caller("viewer"), "environments/production/review"
    for asked in (path, f"{path}/{place[1].name}"):
        assert caller("GET", asked).json()["now"]["mirror_cost_nusd"] is None
