"""Sums by hour and day: exact, including late outcomes, and rebuilt on demand."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F

from policies_app.models import Environment, Workload
from rollout_app.blast_radius.week import read_week
from rollout_app.engine.diagnosis import compare_arms
from rollout_app.engine.diagnosis.figures import total
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns, reading, recount, rollups, running_sums
from rollout_app.review.environments import Period
from rollout_app.review.models import (
    DayOutcomes,
    DayState,
    HourOutcomes,
    HourState,
    RunningOutcomes,
)
from rollout_app.review.workloads import review_workload
from tests.support import builders
from tests.support.outcomes import outcome

NOW = datetime(2026, 11, 24, 15, 20, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def place(db: None) -> tuple[Environment, Workload]:
    return builders.environment(), builders.workload()


@pytest.fixture
def week(place: tuple[Environment, Workload]) -> Iterator[tuple[Environment, Workload]]:
    """300 buckets at random minutes of the last week."""
    rng = random.Random(3)
    for number in range(300):
        outcome(
            *place,
            NOW - timedelta(minutes=rng.randrange(7 * 1440)),
            tasks=rng.randrange(1, 50),
            success=rng.random(),
            cost=rng.randrange(10**9),
            endpoint=rng.choice(["/a", "/b"]),
            model=rng.choice(["small", "large"]),
            rule=f"r{number % 3}",
            version=number,
        )
    yield place


def plain(environment: Environment, workload: Workload, start: datetime, end: datetime) -> dict[Any, Any]:
    """Compute the same from the outcomes alone."""
    rows = OutcomeBucket.objects.filter(environment=environment, workload=workload)
    rows = rows.filter(minute__gte=start, minute__lt=end).order_by()
    found = rows.values_list(*reading.Route._fields).annotate(**columns.from_outcomes())
    return {tuple(values[:7]): columns.as_sums(values[7:]) for values in found}


def test_any_period_equals_the_sum_of_the_outcomes(week: tuple[Environment, Workload]) -> None:
    rng = random.Random(5)
    rollups.refresh(NOW)
    used = reading.sources(*week, NOW - 7 * DAY, NOW)
    assert len(used.days) >= 5 and used.hours and used.spans
    for _ in range(30):
        start = NOW - timedelta(minutes=rng.randrange(7 * 1440))
        end = start + timedelta(minutes=rng.randrange(1, 3 * 1440))
        assert reading.routes(*week, start, end) == plain(*week, start, end)


def test_the_parts_of_a_period_equal_separate_reads(
    week: tuple[Environment, Workload], django_assert_num_queries: Any
) -> None:
    """Six parts take four queries, as one part does: which days, which hours, and the sums."""
    rng = random.Random(11)
    for refreshed in (False, True):
        for _ in range(20):
            start = NOW - timedelta(minutes=rng.randrange(1440, 7 * 1440))
            end = min(start + timedelta(minutes=rng.randrange(60, 6 * 1440)), NOW)
            parts = reading.parts_of(start, end, 6)
            found = reading.routes_by_part(reading.times(*week, parts))
            assert found == [plain(*week, *part) for part in parts]
        if not refreshed:
            rollups.refresh(NOW)
    with django_assert_num_queries(4):
        reading.routes_by_part(reading.times(*week, reading.parts_of(NOW - 7 * DAY, NOW, 6)))


def test_combined_reads_equal_separate_reads(
    week: tuple[Environment, Workload], django_assert_num_queries: Any
) -> None:
    """The periods may overlap, belong to different workloads, or have gaps between them."""
    other = builders.workload("other")
    for number in range(50):
        rollout = "r" if number % 2 else ""
        outcome(week[0], other, NOW - timedelta(hours=3 * number), tasks=number, rollout=rollout)
    rollups.refresh(NOW)
    outcome(week[0], other, NOW - timedelta(hours=50), tasks=9)
    spans = [(NOW - 7 * DAY, NOW - 5 * DAY), (NOW - timedelta(hours=70), NOW)]
    asked = [
        reading.Periods(*week, spans),
        reading.Periods(week[0], other, spans, "r"),
        reading.Periods(*week, [(NOW - 6 * DAY, NOW)]),
        reading.Periods(week[0], other, [(NOW - DAY, NOW)], days=False),
    ]
    with django_assert_num_queries(4):
        found = reading.routes_of(reading.times_of(asked))
    for periods, parts in zip(asked, found, strict=True):
        whole = [plain(periods.environment, periods.workload, *part) for part in periods.parts]
        if periods.rollout:
            whole = [{key: sums for key, sums in part.items() if key[0] == periods.rollout} for part in whole]
        assert parts == whole and any(parts)


def test_a_workload_with_tasks_in_every_other_hour_is_read(place: tuple[Environment, Workload]) -> None:
    """The other hours make 1,100 spans of minutes, and SQLite refuses so many alternatives in one condition."""
    start = NOW.replace(minute=0) - timedelta(hours=2_200)
    spans = [(start + 2 * n * HOUR, start + (2 * n + 1) * HOUR) for n in range(1_100)]
    outcome(*place, spans[0][0], tasks=1)
    outcome(*place, spans[0][0] + HOUR, tasks=10)
    outcome(*place, spans[-1][1] - timedelta(minutes=1), tasks=100)
    periods = reading.Periods(*place, [(start, NOW)])
    ((found,),) = reading.routes_of([reading.Times(periods, [reading.Sources((), (), spans)])])
    assert total(found.values()).tasks == 101
    HourState.objects.bulk_create(
        HourState(environment=place[0], workload=place[1], hour=first - HOUR, rolled=1, final=True)
        for first, _ in spans[2:]
    )
    assert total(reading.routes(*place, start, NOW).values()).tasks == 111


@pytest.mark.parametrize("seconds", [60, 3_600])
def test_both_arms_by_time_equal_the_outcomes(place: tuple[Environment, Workload], seconds: int) -> None:
    rng = random.Random(3)
    expected: dict[tuple[int, int], dict[str, int]] = {}
    for number in range(60):
        at, arm = NOW - timedelta(minutes=rng.randrange(600)), rng.choice(["baseline", "candidate"])
        row = outcome(
            *place, at, tasks=rng.randrange(1, 9), arm=arm, rollout="r", stage=number % 2, rule=f"{number}"
        )
        slot = expected.setdefault((number % 2, int(at.timestamp()) // seconds), {})
        slot[arm] = slot.get(arm, 0) + row.tasks
        outcome(*place, at, tasks=5, rule=f"{number}")
    rollups.refresh(NOW)
    periods = reading.Periods(
        *place, [(NOW - timedelta(minutes=601), NOW + timedelta(minutes=1))], "r", days=False
    )
    read = reading.minutes_of(periods) if seconds == 60 else reading.times_of([periods])[0]
    (found,) = reading.arms_by_time([read], [seconds])
    assert {key: {arm: sums.tasks for arm, sums in arms.items()} for key, arms in found.items()} == expected
    (whole,) = reading.routes_of([read])[0]
    for arm in ("baseline", "candidate"):
        by_route = total(sums for route, sums in whole.items() if route.arm == arm)
        by_time = total(arms[arm] for arms in found.values() if arm in arms)
        assert compare_arms([(by_time, by_time)]) == compare_arms([(by_route, by_route)])


def test_it_reads_the_same_before_the_job_has_run(week: tuple[Environment, Workload]) -> None:
    before = reading.routes(*week, NOW - 7 * DAY, NOW)
    rollups.refresh(NOW)
    assert reading.routes(*week, NOW - 7 * DAY, NOW) == before


def test_latencies_are_merged(week: tuple[Environment, Workload]) -> None:
    whole = [(NOW - 7 * DAY, NOW)]
    (before,) = reading.latencies_by_part(reading.times(*week, whole))
    rollups.refresh(NOW)
    (after,) = reading.latencies_by_part(reading.times(*week, whole))
    assert after == before
    parts = reading.latencies_by_part(reading.times(*week, reading.parts_of(*whole[0], 6)))
    assert reading.merged(parts) == before
    tasks = sum(OutcomeBucket.objects.values_list("tasks", flat=True))
    assert sum(histogram.total for histogram in after.values()) == tasks


def test_late_outcomes_are_read_at_once_and_rolled_up_next(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - 3 * DAY, tasks=10)
    rollups.refresh(NOW)
    outcome(*place, NOW - 3 * DAY + timedelta(minutes=1), tasks=5)
    assert total(reading.routes(*place, NOW - 5 * DAY, NOW).values()).tasks == 15
    assert DayOutcomes.objects.get().tasks == 10
    rollups.refresh(NOW)
    assert DayOutcomes.objects.get().tasks == 15
    assert [row.tasks for row in RunningOutcomes.objects.order_by("day")] == [15, 15, 15, 15]


def test_an_hour_that_changes_during_its_roll_up_stays_marked(
    place: tuple[Environment, Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(*place, NOW - HOUR, tasks=10)
    roll_day = rollups._roll_day

    def meanwhile(*args: Any) -> None:
        roll_day(*args)
        if OutcomeBucket.objects.count() == 1:
            outcome(*place, NOW - HOUR + timedelta(minutes=1), tasks=7)

    monkeypatch.setattr(rollups, "_roll_day", meanwhile)
    rollups._one_turn(NOW)
    assert HourState.objects.exclude(changes=F("rolled")).count() == 1
    assert total(reading.routes(*place, NOW - DAY, NOW).values()).tasks == 17
    rollups.roll_up(NOW)
    assert sum(HourOutcomes.objects.values_list("tasks", flat=True)) == 17


def test_the_current_hour_is_rolled_up_again_once_it_is_over(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - timedelta(minutes=5))
    rollups.roll_up(NOW)
    state = HourState.objects.get()
    assert (state.changes, state.rolled, state.final) == (1, 1, False)
    assert HourOutcomes.objects.get().latency_histogram == {}
    assert rollups.roll_up(NOW) == 0  # no new outcomes
    rollups.roll_up(NOW + HOUR)
    assert HourState.objects.get().final
    assert HourOutcomes.objects.get().latency_histogram == {"zero": 0, "counts": {"100": 100}}


def test_a_day_is_complete_only_when_it_is_over(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - HOUR)
    rollups.refresh(NOW)
    assert not DayState.objects.exists()
    outcome(*place, NOW - DAY)
    rollups.refresh(NOW)
    assert [state.day for state in DayState.objects.all()] == [(NOW - DAY).date()]


def test_running_sums_continue_without_traffic(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - 2 * DAY, tasks=10)
    rollups.refresh(NOW - 2 * DAY)
    rollups.refresh(NOW + 2 * DAY)
    rows = RunningOutcomes.objects.order_by("day").values_list("day", "tasks")
    assert list(rows) == [((NOW + n * DAY).date(), 10) for n in (-2, -1, 0, 1, 2)]


def test_running_sums_are_correct_after_late_days(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - DAY, tasks=10)
    rollups.refresh(NOW)
    outcome(*place, NOW - 4 * DAY, tasks=3, endpoint="/b")
    rollups.refresh(NOW)
    today = RunningOutcomes.objects.filter(day=NOW.date()).order_by("endpoint")
    assert [(row.endpoint, row.tasks) for row in today] == [("/a", 10), ("/b", 3)]
    assert not RunningOutcomes.objects.filter(day=(NOW - 2 * DAY).date(), endpoint="/a").exists()


def test_the_running_sums_equal_the_sums_of_the_days(week: tuple[Environment, Workload]) -> None:
    rollups.refresh(NOW)
    for endpoint in ("/a", "/b"):
        days = DayOutcomes.objects.filter(endpoint=endpoint)
        last = RunningOutcomes.objects.get(day=NOW.date(), endpoint=endpoint)
        for column in columns.COLUMNS:
            assert getattr(last, column) == pytest.approx(sum(days.values_list(column, flat=True)))


def test_a_rebuild_gives_the_same_sums(week: tuple[Environment, Workload]) -> None:
    rollups.refresh(NOW)
    before = list(DayOutcomes.objects.order_by("day", "version").values(*columns.COLUMNS))
    HourOutcomes.objects.update(tasks=0)
    DayOutcomes.objects.all().delete()
    recount.rebuild(now=NOW)
    assert list(DayOutcomes.objects.order_by("day", "version").values(*columns.COLUMNS)) == before


def test_the_check_finds_outcomes_not_written_by_ingest(week: tuple[Environment, Workload]) -> None:
    rollups.refresh(NOW)
    call_command("rollups", check=True)
    row = HourOutcomes.objects.order_by("pk")[3]
    HourOutcomes.objects.filter(pk=row.pk).update(cost_sum=F("cost_sum") + 1)
    with pytest.raises(CommandError, match="1 sums differ"):
        call_command("rollups", check=True)
    call_command("rollups", rebuild=True)
    call_command("rollups", check=True)


def test_the_command_names_the_day_that_it_cannot_read(db: None) -> None:
    with pytest.raises(CommandError, match="is not a date"):
        call_command("rollups", rebuild=True, since="soon")


def test_pruning_keeps_days_longer_than_hours(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - 100 * DAY)
    outcome(*place, NOW - DAY)
    rollups.refresh(NOW)
    rollups.prune(NOW)
    assert (HourOutcomes.objects.count(), DayOutcomes.objects.count()) == (1, 2)
    OutcomeBucket.objects.filter(minute__lt=NOW - 90 * DAY).delete()
    assert total(reading.routes(*place, NOW - 120 * DAY, NOW).values()).tasks == 200


def test_a_day_that_is_partly_pruned_keeps_its_sums(
    place: tuple[Environment, Workload], settings: Any
) -> None:
    """Regression: a rebuild, or one late grade, replaced the sums of the day by those of its remaining hours."""
    settings.OUTCOME_RETENTION_DAYS = 10
    old, kept = NOW - 10 * DAY - HOUR, NOW - 10 * DAY + HOUR  # the same day
    for at in (old, kept, NOW - DAY):
        outcome(*place, at, tasks=100)
    rollups.refresh(NOW)
    rollups.prune(NOW)
    OutcomeBucket.objects.filter(minute__lt=NOW - 10 * DAY).delete()
    recount.rebuild(now=NOW)
    late: dict[str, Any] = {"tasks": 0, "success": 1.0, "graded": 1, "priced": 0, "rule": "graded late"}
    outcome(*place, NOW - 12 * DAY, **late)  # a day without sums
    outcome(*place, old, **late)
    rollups.refresh(NOW)
    assert not HourState.objects.exclude(changes=F("rolled")).exists()
    assert total(reading.routes(*place, NOW - 15 * DAY, NOW).values()).tasks == 300
    assert RunningOutcomes.objects.get(day=NOW.date(), endpoint="/a").tasks == 300


def test_mirrored_runs_are_counted_separately(place: tuple[Environment, Workload]) -> None:
    outcome(*place, NOW - 2 * HOUR, mirror={"n": 4, "both": 4, "candidate_cost_nusd": 500})
    for _ in range(2):
        sums = total(reading.routes(*place, NOW - DAY, NOW).values())
        assert (sums.mirrored, sums.mirror_cost, sums.cost) == (4, 500, 100_000)
        rollups.refresh(NOW)


@pytest.mark.parametrize(
    ("fields", "n", "successes", "cost"),
    [
        ({}, 100, 92, 100_000),
        ({"priced": 50, "success": 1.0}, 50, 50, 50_000),  # A1
        ({"priced": 50, "success": 0.0}, 50, 0, 50_000),
        ({"priced": 50}, 0, 0, 0),  # it is unknown which of the 92 have a cost
        ({"graded": 50}, 0, 0, 0),
        ({"priced": 0}, 0, 0, 0),
        (  # as reported: 40 tasks have both
            {"priced": 50, "graded": 80, "graded_n": 40, "graded_successes": 30, "graded_sum": 40_000},
            40,
            30,
            40_000,
        ),
    ],
)
def test_cost_per_success_uses_only_what_the_counts_imply(
    place: tuple[Environment, Workload], fields: dict[str, Any], n: int, successes: int, cost: int
) -> None:
    outcome(*place, NOW - HOUR, **fields)
    sums = total(reading.routes(*place, NOW - DAY, NOW).values())
    assert (sums.both_n, sums.both_successes, sums.both_cost) == (n, successes, cost)


@pytest.mark.parametrize(("now", "said"), [(NOW, "in 16 min"), (NOW + 9 * DAY, "a day")])
def test_a_short_time_of_traffic_begins_with_its_first_minute(
    place: tuple[Environment, Workload], now: datetime, said: str
) -> None:
    """Not at midnight: the first quarter of an hour would be shown as the spend of fifteen hours, or as a day's."""
    served = builders.served(*place).baseline
    for minutes in (16, 3):
        outcome(*place, NOW - timedelta(minutes=minutes))
    rollups.refresh(NOW)
    known = running_sums.known(place[0], now)
    for workload in (None, place[1]):
        begin = running_sums.begin_of_traffic(place[0], known.first, now, workload)
        assert Period.ending_today(7, now).elapsed(begin).words.replace("\u202f", " ") == said
    length = timedelta(days=7)
    review = review_workload(*place, end=now, length=length)
    assert review.elapsed.words.replace("\u202f", " ") == said
    week = read_week(*place, served, builders.version(place[1]), NOW)
    assert week.span.words.replace("\u202f", " ") == "in 16 min"
