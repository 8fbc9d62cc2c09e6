"""Evaluations in which a part fails: harm still rolls back, display errors stop nothing, everything else holds."""

import logging
import math
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from controlplane.core import clock
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.measures.base import ALL, Conditions
from rollout_app.engine.rescue import PART
from rollout_app.engine.states import State
from rollout_app.evaluation import reconcile, rescue
from rollout_app.models import ArmTotals, Rollout
from tests.support import places
from tests.support.evidence_builders import ledger
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db
PLAN: list[dict[str, Any]] = [
    {"mode": "percentage", "share_pcm": 20_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "full"},
]
MEASURES = "rollout_app.engine.measures"
# Parts of the evidence. While one raises, nothing is known to be safe.
EVIDENCE = [
    *(f"{MEASURES}.ratios.RatioChange.{name}" for name in ("take", "harm", "_harm_part", "_exact", "safe", "estimate")),
    *(f"{MEASURES}.rates.RateDifference.{name}" for name in ("take", "harm", "_harm_part", "safe", "estimate")),
    f"{MEASURES}.rates.RateDifference.margin_for",
    f"{MEASURES}.sufficient.RateStatistics.take",
    f"{MEASURES}.shares.Shares.take",
    f"{MEASURES}.shares.Shares.verdicts",
    f"{MEASURES}.shares.Shares.differing_mismatch",
    f"{MEASURES}.slices.FollowedSlices.take",
    "rollout_app.engine.measures.views.differing_sums",
    "rollout_app.engine.accumulator.Accumulator.conditions",
    "rollout_app.engine.accumulator.Accumulator._srm",
    "rollout_app.engine.accumulator.Accumulator.from_dict",
    "rollout_app.engine.accumulator.Accumulator.as_dict",
    "rollout_app.engine.accumulator.judge",
    "rollout_app.evaluation.judging.decide",
    "rollout_app.evaluation.evaluations.load",
    "rollout_app.evaluation.evaluations.store",
    "rollout_app.outcomes.stored_sums.arm_sums",
    "rollout_app.outcomes.stored_sums.slices",
    "rollout_app.outcomes.stored_sums.differing",
]  # fmt: skip
# Parts that evidence of higher cost does not depend on: while one raises, a dearer candidate is still rolled
# back.
BESIDE_COSTS = [
    part
    for part in EVIDENCE
    if not part.startswith((f"{MEASURES}.ratios", f"{MEASURES}.sufficient"))
    and not part.endswith(("Accumulator.conditions", "accumulator.judge", "margin_for"))
]
# Parts that are only displayed.
DISPLAY = [
    f"{MEASURES}.rates.RateDifference.interval",
    "rollout_app.engine.accumulator.with_named_slices",
    f"{MEASURES}.rates.RateDifference.record",
    f"{MEASURES}.ratios.RatioChange.interval",
    f"{MEASURES}.rates.RateDifference.safe_after",
    "rollout_app.engine.judgement.needed_tasks",
    "rollout_app.engine.accumulator.pace_of",
    "rollout_app.engine.verdicts.hurt",
    "rollout_app.engine.decide.harm_of",
    "rollout_app.engine.decide.outlook_of",
    "rollout_app.evaluation.judging.with_outlook",
    "rollout_app.engine.verdicts.detailed",
    "rollout_app.engine.accumulator.detailed",
    "rollout_app.engine.judgement.Judgement.as_dict",
]


def running(minutes: int, candidate: float, *, candidate_cost: int = 700_000) -> Rollout:
    """Return a rollout in its second stage, evaluated once with equal traffic in both arms, then with `minutes`
    more.
    """
    rollout = places.started(plan=PLAN)
    places.router(rollout)
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=5)).minutes(2)
    assert reconcile.reconcile(rollout.pk) == "hold"
    traffic.minutes(minutes, candidate=candidate, candidate_cost=candidate_cost)
    return rollout


def broken(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    def raises(*args: Any, **kwargs: Any) -> Any:
        raise OverflowError("math range error")

    monkeypatch.setattr(target, raises)


@pytest.mark.parametrize("part", [*EVIDENCE, *DISPLAY])
def test_it_rolls_back_if_any_part_of_the_evidence_raises(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rollout = running(6, 0.1)
    broken(monkeypatch, part)
    with caplog.at_level(logging.ERROR):
        assert reconcile.evaluate([rollout.pk]) == ["roll_back"]
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLING_BACK
    assert rollout.rollback_reason
    assert places.assignment(rollout).baseline == rollout.baseline


@pytest.mark.parametrize("part", BESIDE_COSTS)
def test_it_rolls_back_a_dearer_candidate_if_another_part_raises(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = running(8, 0.92, candidate_cost=5_000_000)
    broken(monkeypatch, part)
    assert reconcile.evaluate([rollout.pk]) == ["roll_back"]
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLING_BACK
    assert "Cost per success" in rollout.rollback_reason


def test_sums_that_lack_a_window_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = running(60, 0.92)
    with monkeypatch.context() as patch:
        broken(patch, f"{MEASURES}.rates.RateDifference.take")
        assert reconcile.reconcile(rollout.pk) == "hold"
        before = Rollout.objects.get(pk=rollout.pk)
    assert before.hold_code == "evaluation_failed"
    assert before.evidence == rollout.evidence
    assert reconcile.reconcile(rollout.pk) == "advance"


def test_unreadable_minutes_are_read_again_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, reads = running(2, 0.92), 0
    broken(monkeypatch, "rollout_app.evaluation.judging.decide")
    kept = Accumulator.take

    def take(self: Accumulator, rows: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return kept(self, rows, **kwargs)

    monkeypatch.setattr(Accumulator, "take", take)
    now, seen = clock.now(), []
    for seconds in (0, 2, 59, 60):
        reads = 0
        assert reconcile.evaluate([rollout.pk], now=now + timedelta(seconds=seconds)) == ["error"]
        seen.append(reads)
    assert seen == [2, 1, 1, 2]  # by the evaluation itself, and by the rescue


def test_plain_counts_need_as_much_evidence_as_at_their_lowest_weight_in_a_whole_evaluation() -> None:
    """Without differing tasks and slices, all tasks have a weight of 85 %; with them, at least 38 %."""
    parts = ledger(looks=3).measures["failure"].harm(Conditions())
    alone = next(part for part in parts if part.name == ALL)
    assert alone.weight == pytest.approx(0.85)
    needed = math.exp(rescue._PLAIN_ROLL_BACK)
    assert needed == pytest.approx(20 * alone.weight / PART)


@pytest.mark.parametrize("unit", ["request", "user"])
def test_plain_counts_of_sticky_units_alone_show_no_harm(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = running(8, 0.92, candidate_cost=5_000_000)
    type(rollout.workload).objects.filter(pk=rollout.workload_id).update(unit=unit)
    broken(monkeypatch, "rollout_app.outcomes.stored_sums.arm_sums")
    assert reconcile.evaluate([rollout.pk]) == ["roll_back" if unit == "request" else "error"]


@pytest.mark.parametrize("part", EVIDENCE)
def test_it_does_not_advance_if_a_part_of_the_evidence_raises(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rollout = running(60, 0.92)
    broken(monkeypatch, part)
    with caplog.at_level(logging.ERROR):
        assert set(reconcile.evaluate([rollout.pk])) <= {"hold", "error"}
    rollout.refresh_from_db()
    assert (rollout.state, rollout.stage) == (State.RUNNING, 0)
    if part.endswith("_exact"):  # not used in a rollout without its figures
        return
    assert rollout.hold_code == "evaluation_failed"
    assert "OverflowError" in rollout.hold_sentence
    assert "OverflowError" in caplog.text


@pytest.mark.parametrize("part", DISPLAY)
def test_it_advances_if_only_display_fails(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = running(60, 0.92)
    broken(monkeypatch, part)
    assert reconcile.reconcile(rollout.pk) == "advance"


@pytest.mark.parametrize("part", DISPLAY)
def test_it_holds_for_evidence_if_only_display_fails(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = running(1, 0.92)
    broken(monkeypatch, part)
    assert reconcile.reconcile(rollout.pk) == "hold"
    rollout.refresh_from_db()
    assert rollout.hold_code == "evidence"
    if part.endswith(("needed_tasks", "safe_after", "with_outlook")):
        assert "cannot be estimated yet" in rollout.outlook


def test_it_rolls_back_without_outcomes_while_the_evaluation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout_app.models import ArmTotals

    rollout = running(2, 0.92)
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="candidate")
    rows.update(decided=15, tasks=0, tracked=0, successes=0, failures=0, cost_n=0)
    broken(monkeypatch, "rollout_app.evaluation.judging.decide")
    assert reconcile.reconcile(rollout.pk) == "roll_back"
    rollout.refresh_from_db()
    assert "none of them finished" in rollout.rollback_reason


def test_the_others_of_its_batch_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    ill, well = running(6, 0.1), running(60, 0.92)
    kept = Accumulator.take

    def take(self: Accumulator, rows: Any, **kwargs: Any) -> Any:
        if len(rows) < 20:
            raise OverflowError("math range error")
        return kept(self, rows, **kwargs)

    monkeypatch.setattr(Accumulator, "take", take)
    assert sorted(reconcile.evaluate([ill.pk, well.pk])) == ["advance", "roll_back"]


def test_it_holds_if_not_even_failures_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = running(2, 0.92)
    broken(monkeypatch, f"{MEASURES}.rates.RateDifference.safe")
    broken(monkeypatch, "rollout_app.evaluation.rescue.failures_alone")
    assert reconcile.reconcile(rollout.pk) == "hold"
    rollout.refresh_from_db()
    assert (rollout.state, rollout.hold_code) == (State.RUNNING, "evaluation_failed")


@pytest.mark.parametrize("what", ["in shadow", "without outcomes"])
def test_a_failing_evaluation_rolls_back_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shadow no traffic can be harmed, and without outcomes nothing is known."""
    rollout = places.started(plan=places.PLAN if what == "in shadow" else PLAN)
    if what == "in shadow":
        Traffic(rollout, start=clock.now() - timedelta(hours=5)).minutes(3, baseline=0.1)
    broken(monkeypatch, "rollout_app.evaluation.judging.decide")
    assert reconcile.evaluate([rollout.pk]) == ["error"]
    rollout.refresh_from_db()
    assert (rollout.state, rollout.hold_code) == (State.RUNNING, "evaluation_failed")


def test_it_does_not_roll_back_because_the_candidate_s_successes_were_never_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every decision was counted, and four of ten of the candidate's successes are missing: they are no failures."""
    rollout = running(30, 0.92)
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk))
    rows.update(decided=F("tasks"), tracked=F("tasks"))
    lost = F("successes") * 2 / 5
    rows.filter(arm="candidate").update(tasks=F("tasks") - lost, successes=F("successes") - lost)
    broken(monkeypatch, "rollout_app.outcomes.stored_sums.arm_sums")
    assert reconcile.evaluate([rollout.pk]) == ["error"]
    rollout.refresh_from_db()
    assert (rollout.state, rollout.hold_code) == (State.RUNNING, "evaluation_failed")
