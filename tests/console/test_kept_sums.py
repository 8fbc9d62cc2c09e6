"""The page of a long rollout reads only what changed; a poll without news renders nothing."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from controlplane.core.actors import SYSTEM
from policies_app.actions import pin
from policies_app.models import Environment, Workload
from rollout_app.console import kept_sums
from rollout_app.console.comparison import compare_arms
from rollout_app.console.presenters import shadow_figures
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes.minute_totals import stamped
from rollout_app.review import rollups
from rollout_app.review.rollups import hour_of, mark_changed
from tests.support.outcomes import outcome
from tests.support.pages import text
from tests.support.people import People, approve_stage, running

LIVE = {"HX-Request": "true"}
DAYS = 16


@pytest.fixture
def long_one(summaries: Workload, production: Environment) -> Rollout:
    """A rollout of sixteen days with 10 tasks an hour in each arm."""
    rollout = running(summaries, production)
    start = timezone.now() - timedelta(days=DAYS)
    Rollout.objects.filter(pk=rollout.pk).update(started_at=start)
    rollout.refresh_from_db()
    hours = [hour_of(start) + timedelta(hours=n) for n in range(1, DAYS * 24)]
    ArmTotals.objects.bulk_create(
        row(rollout, arm, hour) for hour in hours for arm in ("baseline", "candidate")
    )
    mark_changed((rollout.environment_id, rollout.workload_id, hour) for hour in hours)
    return rollout


def row(rollout: Rollout, arm: str, minute: Any, **figures: Any) -> ArmTotals:
    place = {"environment": rollout.environment, "workload": rollout.workload, "rollout": str(rollout.pk)}
    counted = {"tasks": 10, "successes": 9, "failures": 1, "cost_sum": 90, **figures}
    return ArmTotals(**place, stage=0, arm=arm, version=1 + (arm == "candidate"), minute=minute, **counted)


def planned(rollout: Rollout, stages: list[dict[str, Any]]) -> Rollout:
    Rollout.objects.filter(pk=rollout.pk).update(stages=stages)
    rollout.refresh_from_db()
    return rollout


def tasks(rollout: Rollout) -> tuple[str, str]:
    line = compare_arms(rollout).lines[0]
    return line.baseline, line.candidate


def test_a_late_report_for_an_old_hour_is_counted(long_one: Rollout) -> None:
    assert tasks(long_one) == ("3,830", "3,830")
    old = ArmTotals.objects.filter(arm="candidate").order_by("minute")[40]
    ArmTotals.objects.filter(pk=old.pk).update(tasks=1_010)
    mark_changed([(long_one.environment_id, long_one.workload_id, hour_of(old.minute))])
    assert tasks(long_one) == ("3,830", "4,830")


def test_unchanged_days_are_not_read_again(long_one: Rollout) -> None:
    whole = tasks(long_one)
    with CaptureQueriesContext(connection) as asked:
        assert tasks(long_one) == whole
    sums = [query["sql"] for query in asked if "SUM(" in query["sql"]]
    assert len(sums) == 1 and '"minute" >=' in sums[0]


def test_days_that_are_rolled_up_are_read_from_their_sums(long_one: Rollout) -> None:
    """They equal the sums of the minutes, which are read only for the other days. A late report makes a day invalid."""
    for total in ArmTotals.objects.all():
        fields: dict[str, Any] = {
            name: getattr(total, name) for name in ("tasks", "rollout", "stage", "arm", "version")
        }
        success = total.successes / total.tasks
        outcome(long_one.environment, long_one.workload, total.minute, success=success, cost=9, **fields)
    whole = tasks(long_one)
    kept_sums._KEPT.clear()
    while rollups.roll_up():
        pass
    old = ArmTotals.objects.filter(arm="candidate").order_by("minute")[100]
    ArmTotals.objects.filter(minute__date=old.minute.date()).delete()  # only the day's sums are left
    assert tasks(long_one) == whole
    kept_sums._KEPT.clear()
    mark_changed([(long_one.environment_id, long_one.workload_id, hour_of(old.minute))])
    assert tasks(long_one) != whole


def test_a_rollout_without_hourly_counts_shows_its_newest_minutes(long_one: Rollout) -> None:
    """As for rollouts from before the counts were introduced."""
    tasks(long_one)
    row(long_one, "candidate", timezone.now().replace(second=0, microsecond=0), tasks=7).save()
    assert tasks(long_one) == ("3,830", "3,837")


def test_the_shadow_stage_is_summed_by_day(summaries: Workload, production: Environment) -> None:
    plan: list[dict[str, Any]] = [{"mode": "shadow", "min_tasks": 9}, {"mode": "full"}]
    rollout = planned(running(summaries, production), plan)
    day = timezone.now().replace(second=0, microsecond=0)
    decided = {"decisions": 10, "agreed": 9, "routes": {"small>large": 1, "small>small": 9}}
    for days in (2, 1):
        row(rollout, "baseline", day - timedelta(days=days), shadow=decided).save()
    for expected in ("20", "30"):
        found = shadow_figures(rollout)
        assert found is not None and found.facts[0] == ("Decisions compared", expected)
        assert found.shifts[0][1].startswith("+10.0") or found.shifts[0][1].startswith("−10.0")
        if expected == "20":
            row(rollout, "baseline", day, shadow=decided).save()


def test_the_minutes_of_a_rollout_are_found_by_an_index(long_one: Rollout) -> None:
    """Regression: with only the id, SQLite read the whole table, with the minutes of all workloads."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        plan = ArmTotals.of_rollout(long_one).explain()
    assert "SCAN" not in plan and "Seq Scan" not in plan


def poll(client: Any, rollout: Rollout, tag: str = "") -> Any:
    address = reverse("console:rollout", args=[rollout.pk])
    return client.get(address, headers={**LIVE, **({"If-None-Match": tag} if tag else {})})


def test_a_poll_without_news_renders_nothing(
    people: People, long_one: Rollout, django_assert_max_num_queries: Any
) -> None:
    client = people("tom", "operator")
    tag = poll(client, long_one).headers["ETag"]
    with django_assert_max_num_queries(6):
        assert poll(client, long_one, tag).status_code == 304


def test_the_next_poll_shows_what_another_person_did(
    people: People, summaries: Workload, production: Environment
) -> None:
    plan = [{"mode": "percentage", "share_pcm": 5_000}, {"mode": "full", "approval": True}]
    client, rollout = people("tom", "operator"), planned(running(summaries, production), plan)
    tag = poll(client, rollout).headers["ETag"]
    approve_stage(rollout, 1)
    seen = poll(client, rollout, tag)
    assert seen.status_code == 200 and "eva" in text(seen)
    pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    again = poll(client, rollout, seen.headers["ETag"])
    assert again.status_code == 200 and "incident 231" in text(again)


def test_the_tag_of_another_person_is_not_accepted(people: People, long_one: Rollout) -> None:
    """The buttons differ from person to person."""
    tag = poll(people("tom", "operator"), long_one).headers["ETag"]
    assert poll(people("vera", "viewer"), long_one, tag).status_code == 200


def test_the_first_and_last_minute_cover_all_stages(long_one: Rollout) -> None:
    minutes = ArmTotals.objects.order_by("minute").values_list("minute", flat=True)
    assert stamped(long_one) == (minutes[0], minutes[len(minutes) - 1])
    late = timezone.now().replace(second=0, microsecond=0) + timedelta(minutes=3)
    ArmTotals.objects.filter(pk=row_of_stage_1(long_one, late)).update(tasks=5)
    assert stamped(long_one) == (minutes[0], late)


def row_of_stage_1(rollout: Rollout, minute: Any) -> int:
    made = row(rollout, "candidate", minute)
    made.stage = 1
    made.save()
    return made.pk


def test_without_minutes_there_is_no_first_one(summaries: Workload, production: Environment) -> None:
    assert stamped(running(summaries, production)) == (None, None)
