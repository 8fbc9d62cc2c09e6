"""The full stage: no baseline runs, so only absolute bounds are judged. They roll back there, too."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Complete, Hold, RollBack, decide
from rollout_app.engine.evidence import ArmSums, Group, Late, Stage
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.verdicts import Verdict
from tests.support.evidence_builders import (
    FLEET,
    NOW,
    REFERENCE,
    STAGES,
    arm,
    evidence,
    stratum,
    view,
)
from tests.support.recompute import recompute

FULL = len(STAGES) - 1
BOUNDS = {"failure": 0.15, "error": 0.03, "latency_tail": 0.1, "cost_per_success": 1_500, "quality": 0.6}
OWN = guardrails_for({"metric": metric, "bound": bound} for metric, bound in BOUNDS.items())


def at_full(reference: Reference = REFERENCE, before: ArmSums | None = None) -> Accumulator:
    """Return the sums of a candidate that was as good as the baseline until the full stage."""
    opened = Accumulator.open(OWN, STAGES, reference)
    for stage in range(1, FULL):
        for minute in range(20):
            opened.add(stratum(stage, 100 * stage + minute, before or arm(1_000), arm(1_000)))
    return opened


def named(seen: Accumulator, name: str) -> Verdict:
    return next(verdict for verdict in seen.judge(FULL).verdicts if verdict.name == name)


def decided(seen: Accumulator) -> Any:
    return decide(view(FULL), evidence(seen.judge(FULL)), FLEET, NOW)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("failure_bound", {"failure": 1.0}),
        ("failure_bound", {"failure": 0.25}),
        ("error_bound", {"error": 0.2}),
        ("latency_tail_bound", {"latency_tail": 0.5}),
        ("cost_per_success_bound", {"cost": 3.0}),
        ("quality_bound", {"quality": 0.3}),
    ],
)
def test_a_broken_bound_rolls_back_in_the_full_stage(name: str, bad: dict[str, float]) -> None:
    """Regression: every task failed in the full stage, "at most 15 %" was never judged, and the rollout completed.

    80,000 good tasks came before, so what counts is the evidence since the full stage.
    """
    seen = at_full()
    assert isinstance(decided(seen), Complete)
    for minute in range(5):
        seen.add(stratum(FULL, 1_000 + minute, arm(1_000, **bad), ArmSums()))
    found = decided(seen)
    assert isinstance(found, RollBack) and name in [verdict.name for verdict in found.verdicts]
    assert "since full)" in found.reason
    assert named(seen, name).counted_since == FULL
    assert [judged[0] for judged in named(seen, name).strata] == [1, 2, 3, 4, FULL]


def test_a_candidate_within_its_bounds_completes() -> None:
    seen = at_full()
    for minute in range(60):
        seen.add(stratum(FULL, 1_000 + minute, arm(1_000), ArmSums()))
    assert isinstance(decided(seen), Complete)
    assert named(seen, "failure_bound").n_candidate == 80_000 + 60_000


def test_what_is_compared_with_the_baseline_stays_as_it_was() -> None:
    seen, as_before = at_full(), at_full()
    seen.add(stratum(FULL, 1_000, arm(1_000, failure=1.0), arm(5, failure=1.0)))  # a router lags behind
    for name in ("failure", "error", "cost_per_success", "latency_tail"):
        assert named(seen, name) == named(as_before, name)
    bound = named(seen, "failure_bound")
    assert (bound.n_candidate, bound.n_baseline) == (81_000, 80_000)


def ungraded(sums: ArmSums, share: float) -> ArmSums:
    """Return the sums without this share of the successes."""
    return replace(sums, successes=round(sums.successes * (1 - share)), costs=replace(sums.costs, n=0))


def test_successes_without_a_grade_are_no_failures() -> None:
    seen = at_full()
    for minute in range(20):
        seen.add(stratum(FULL, 1_000 + minute, ungraded(arm(1_000), 0.9), ArmSums()))
    [graded] = {part.estimate for part in named(seen, "failure_bound").parts if part.name == f"since {FULL}"}
    assert graded is not None and graded < 0.1
    assert not seen.judge(FULL).roll_back


def test_it_still_detects_failures_among_as_many_grades_as_before() -> None:
    seen = at_full(before=ungraded(arm(1_000), 0.5))
    for minute in range(20):
        seen.add(stratum(FULL, 1_000 + minute, ungraded(arm(1_000, failure=0.6), 0.5), ArmSums()))
    assert seen.judge(FULL).roll_back


def test_successes_that_come_late_are_no_failures() -> None:
    """The routers do not report their decisions, so late tasks are counted as they come."""
    seen = at_full()
    some = replace(arm(1_000), tasks=300, successes=220)
    for minute in range(20):
        seen.add(stratum(FULL, 1_000 + minute, some, ArmSums()))
    assert seen.judge(FULL).roll_back
    assert seen.take_late({FULL: Late(14_000)})
    seen = Accumulator.from_dict(json.loads(json.dumps(seen.as_dict())))
    assert not seen.take_late({FULL: Late(14_000)}), "they are counted once"
    assert not seen.judge(FULL).roll_back
    assert not [share for share in seen.judge(FULL).missing if share.shown]


def test_heavy_units_stay_excluded() -> None:
    cells = {1: (5_000, 400, 5_000, 400), **dict.fromkeys(range(2, 200), (100, 8, 100, 8))}
    seen = at_full(replace(REFERENCE, sticky=True, cells=cells))
    assert seen.units is not None and 1 in seen.units.left_out
    before = named(seen, "failure_bound").n_candidate
    window = replace(
        stratum(FULL, 1_000, arm(1_000, failure=0.4), ArmSums()),
        candidate_cells={1: Group(400, 320), 2: Group(600, 80)},
    )
    seen.add(window)
    assert named(seen, "failure_bound").n_candidate == before + 600


def test_suspicion_of_a_bound_can_fall_again() -> None:
    seen = at_full()
    for minute in range(40):
        seen.add(stratum(FULL, 1_000 + minute, arm(50, failure=0.24), ArmSums()))
        if isinstance(found := decided(seen), Hold):
            break
    assert isinstance(found, Hold) and found.reason.code == "amber"
    assert found.outlook.startswith("More tasks: if the candidate is no worse, the evidence of harm falls.")


def test_a_revert_is_not_judged() -> None:
    """Its plan is the full stage alone and ends at once: rolling it back would restore what somebody has just left."""
    seen = Accumulator.open(OWN, (Stage("full"),), REFERENCE)
    seen.add(stratum(0, 0, arm(1_000, failure=1.0), ArmSums()))
    assert not seen.judge(0).roll_back
    seen = Accumulator.open(OWN, (Stage("full", min_minutes=60),), REFERENCE)
    seen.add(stratum(0, 0, arm(1_000, failure=1.0), ArmSums()))
    assert seen.judge(0).roll_back


@pytest.mark.parametrize("bad", [{}, {"failure": 0.3, "cost": 2.0, "quality": 0.5}])
def test_it_can_be_recomputed_and_stored(bad: dict[str, float]) -> None:
    script, seen = recompute(), at_full()
    for minute in range(5):
        seen = Accumulator.from_dict(json.loads(json.dumps(seen.as_dict())))
        seen.add(stratum(FULL, 1_000 + minute, ungraded(arm(1_000, **bad), 0.3), ArmSums()))
    rollout = json.loads(
        json.dumps({"stages": [stage.as_dict() for stage in STAGES], "reference": REFERENCE.as_dict()})
    )
    for verdict in seen.judge(FULL).verdicts:
        data = json.loads(json.dumps(verdict.as_dict()))
        row = {"stage": FULL, "verdict": data["result"], "data": data}
        assert script.differences(rollout, row) == {}, verdict.name
    assert {Metric(name) for name in BOUNDS} == {
        verdict.metric for verdict in seen.judge(FULL).verdicts if verdict.is_bound
    }
