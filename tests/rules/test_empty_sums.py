"""Sums of nothing: 0, or unknown where 0 would be a claim; adding them changes nothing. Also: defaults that matter."""

from dataclasses import fields
from typing import Any

import pytest

from rollout_app.engine.diagnosis.figures import NOTHING, OutcomeSums
from rollout_app.engine.evidence import (
    ArmSums,
    Differing,
    GradedCosts,
    Late,
    MirrorSums,
    Rehearsed,
    RolloutView,
    ShadowSums,
    SliceSums,
    Stage,
    Telemetry,
)
from rollout_app.engine.judgement import Judgement, StageTally, UnitsSeen
from rollout_app.engine.measures.base import DEFAULT, PLAIN, Conditions, HarmPart, Tuning
from rollout_app.engine.measures.outlook import Pace
from rollout_app.engine.measures.sufficient import MissingStatistics, RateStatistics, RatioStatistics
from rollout_app.engine.measures.units import Units
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.rescue import PlainMinute
from rollout_app.engine.states import State
from rollout_app.engine.stats.cells import Prediction
from rollout_app.engine.stats.missing import Excess
from rollout_app.engine.stats.ratios import Contrast, Moments
from rollout_app.engine.verdicts import Verdict, VerdictResult
from tests.support.evidence_builders import NOW

NOT_KNOWN = {
    "decided", "candidate_priced", "baseline_priced", "candidate_whole", "first_minute", "last_minute",
    "newest_outcome_at", "errors",
}  # fmt: skip
SUMS: list[Any] = [
    ArmSums(), GradedCosts(), SliceSums(), Differing(), ShadowSums(), MirrorSums(), Late(), Telemetry(), StageTally(),
    MissingStatistics(), RateStatistics(()), RatioStatistics(), Moments(), Contrast(), PlainMinute(0, 0),
]  # fmt: skip


@pytest.mark.parametrize("empty", SUMS, ids=lambda empty: type(empty).__name__)
def test_empty_sums_are_zero_or_unknown(empty: Any) -> None:
    """Each field is 0, empty, or made of such values. `errors` is a count in some sums, in others not computed yet."""
    nothing = {0, None}
    for one in fields(empty):
        value = getattr(empty, one.name)
        if isinstance(value, int | float):
            assert value == 0, one.name
        elif value is None:
            assert one.name in NOT_KNOWN
        elif isinstance(value, tuple | list | dict):
            assert set(value) <= nothing, one.name
        else:
            assert value == type(value)(), one.name


def test_adding_empty_sums_changes_nothing() -> None:
    """Added to sums whose fields all differ, so that no field can be mistaken for another."""
    figures: list[Any] = [*range(1, 19), GradedCosts(1, 2, 3, 4.0, 5, 6), (7, 8, 9), 70]
    arm = ArmSums(*figures)
    assert arm + ArmSums() == ArmSums() + arm == arm
    shadow = ShadowSums(9, 8, 7, 6, 5, 4, 3, 2)
    mirror = MirrorSums(*range(1, 10))
    assert Rehearsed(shadow, mirror) + Rehearsed() == Rehearsed() + Rehearsed(shadow, mirror)
    assert (Rehearsed(shadow, mirror) + Rehearsed()).mirror == mirror
    assert (Rehearsed(shadow, mirror) + Rehearsed()).shadow.counts == shadow.counts
    slices = SliceSums(4, 2, 1, GradedCosts(1, 2, 3, 4.0, 5, 6))
    assert slices + SliceSums() == SliceSums() + slices == slices
    outcomes = OutcomeSums(*range(1, 23))
    assert outcomes + NOTHING == NOTHING + OutcomeSums(*outcomes) == outcomes
    assert tuple(NOTHING) == (0,) * 22


def test_the_defaults_are_those_documented() -> None:
    """The defaults that affect a decision."""
    assert Stage("shadow").as_dict() == {
        "mode": "shadow", "share_pcm": 0, "min_minutes": 0, "min_tasks": 0, "max_hours": None, "on_timeout": "hold",
        "approval": False, "mirror_pcm": 0, "skippable": False, "tolerance": 1.0,
    }  # fmt: skip
    view = RolloutView(State.RUNNING, (Stage("full"),), 0, NOW)
    assert (view.paused_seconds, view.next_stage_approved, view.freeze, view.following) == (
        0,
        False,
        None,
        None,
    )
    assert Tuning() == DEFAULT == Tuning(0.05, 0.10, 0.5, 0.5, 0.05, 50)
    assert Tuning(0, 0, 0, 0, 0, least_cost_tasks=100) == PLAIN
    assert Conditions() == Conditions(DEFAULT, 1.0, None, False, False, {})
    assert HarmPart("all", 0.5, 1.0) == HarmPart("all", 0.5, 1.0, None, counted=False, failed="")
    assert (Pace(), Excess(), Prediction(0.5)) == (
        Pace(1.0, 0),
        Excess(0.0, 0.0, True),
        Prediction(0.5, {}, 0.0),
    )
    assert UnitsSeen() == UnitsSeen((), 0.0, 1.0, None)
    judged = Judgement((), 0.0, 0.0, {})
    assert (judged.missing, judged.unguarded, judged.broken, judged.furthest) == ((), False, (), None)
    units = Units()
    assert (units.level, units.reported, units.stage, units.recent_minute) == ([0, 0], False, None, None)
    assert units.prediction == Prediction(0.0)
    plain = Reference(9)
    assert (plain.deff, plain.unit_spread, plain.cost_kept, plain.tail_noise, plain.sticky) == (
        1,
        0,
        1,
        1,
        False,
    )
    assert not plain.latency_declared


def test_a_verdict_counts_nothing_by_default() -> None:
    verdict = Verdict(
        "failure", Metric.FAILURE, VerdictResult.PASS, 1, 1, None, None, None, 0.0, 0.0, 0.1, 0.1, 1.0,
        counted=False, gates=True,
    )  # fmt: skip
    assert verdict.as_dict()["log_e_counted"] is None
    assert verdict.log_e_counted == float("-inf")
    assert (verdict.deff, verdict.needed_tasks, verdict.failed, verdict.note) == (1.0, None, "", "")
    assert not verdict.waited_for
