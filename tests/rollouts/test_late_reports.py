"""Reports after a window closed: counted before each move, and a reason to hold if only one arm has them."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from controlplane.core import clock
from rollout_app.engine.decide import RollBack
from rollout_app.evaluation import evaluations, judging, reconcile
from rollout_app.models import ArmTotals, Rollout
from tests.support import places
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db
PLAN: list[dict[str, Any]] = [
    {"mode": "percentage", "share_pcm": 20_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "full"},
]


def judged(minutes: int = 4, **traffic: Any) -> tuple[Rollout, Traffic]:
    """Return a rollout that holds for evidence, with all but its newest minute judged."""
    rollout = places.started(plan=PLAN)
    places.router(rollout)
    made = Traffic(rollout, start=clock.now() - timedelta(hours=5)).minutes(minutes, **traffic)
    assert reconcile.reconcile(rollout.pk) == "hold"
    return rollout, made


def comes_late(rollout: Rollout, arm: str, tasks: int, *, graded: bool = True) -> None:
    """Add late tasks to each judged minute, or late grades."""
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), arm=arm)
    more = {"successes": F("successes") + tasks} if graded else {}
    rows.update(tasks=F("tasks") + tasks, ungraded=F("ungraded") + (0 if graded else tasks), **more)


def held(rollout: Rollout) -> tuple[str, str]:
    rollout.refresh_from_db()
    return rollout.hold_code, rollout.hold_sentence


@pytest.mark.parametrize("graded", [True, False])
def test_it_does_not_advance_while_only_the_candidate_reports_late(graded: bool) -> None:
    rollout, traffic = judged()
    comes_late(rollout, "candidate", 30, graded=graded)
    traffic.minutes(60)
    assert reconcile.reconcile(rollout.pk) == "hold"
    code, sentence = held(rollout)
    assert code == "incomplete"
    assert "of the candidate's tasks were reported after their window had closed" in sentence


def test_it_advances_if_both_arms_report_late_equally() -> None:
    rollout, traffic = judged()
    comes_late(rollout, "candidate", 4)
    comes_late(rollout, "baseline", 16)
    traffic.minutes(60)
    assert reconcile.reconcile(rollout.pk) == "advance"
    rollout.refresh_from_db()
    assert rollout.evidence["shares"]["late"]["0"][:2] == [12, 48]  # over three judged minutes


def test_it_advances_once_late_reports_are_negligible() -> None:
    rollout, traffic = judged(minutes=4)
    comes_late(rollout, "candidate", 5)
    traffic.minutes(60)
    assert reconcile.reconcile(rollout.pk) in ("hold", "advance")
    for _ in range(30):
        traffic.minutes(40)
        if reconcile.reconcile(rollout.pk) == "advance":
            break
    rollout.refresh_from_db()
    assert rollout.stage == 1


def test_it_does_not_roll_back_because_successes_arrive_late() -> None:
    """The outcomes so far look like failure; the missing successes arrive after their windows closed."""
    rollout, traffic = judged(minutes=2)
    traffic.minutes(5, candidate=0.55)
    [first], _ = judging.judge(evaluations.load([rollout.pk]), clock.now(), judging.Fleets())
    assert isinstance(first.decision, RollBack)  # as it would if they never came
    evaluations.store([first], clock.now())
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="candidate", failures__gt=10)
    last = rows.order_by("-minute").values_list("minute", flat=True)[0]
    rows.filter(minute__lt=last).update(tasks=F("tasks") + 200, successes=F("successes") + 200)
    traffic.minutes(1, candidate=0.55)
    assert reconcile.reconcile(rollout.pk) == "hold"
    assert held(rollout)[0] == "incomplete"


def test_a_late_grade_of_a_task_on_time_counts_as_late() -> None:
    rollout, traffic = judged()
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="candidate")
    rows.update(tasks=F("tasks"), successes=F("successes") - 20, ungraded=F("ungraded") + 20)
    # Judge the minutes again with what is known now.
    Rollout.objects.filter(pk=rollout.pk).update(evidence={})
    assert reconcile.reconcile(rollout.pk) == "hold"
    rows.filter(ungraded__gt=0).update(successes=F("successes") + 20, ungraded=F("ungraded") - 20)
    traffic.minutes(80)
    reconcile.reconcile(rollout.pk)
    rollout.refresh_from_db()
    assert rollout.evidence["shares"]["late"].get("0", [0] * 4)[2] == 60 or rollout.hold_code == "incomplete"
