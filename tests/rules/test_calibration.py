"""Calibration: measuring the baseline before a rollout."""

import json
from dataclasses import replace

import pytest

from pointsman.reporting.histogram import Histogram, index
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.calibration import calibrate
from rollout_app.engine.evidence import NO_COSTS, ArmSums, GradedCosts, Group
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.reference import Reference
from tests.support.evidence_builders import STAGES, arm, stratum

ARM = ArmSums(
    tasks=1_200, successes=900, failures=100, errors=12, escalations=240, fallbacks=6, retries=36,
    cost_n=1_200, cost=1_200_000, costs=GradedCosts(1_000, 900, 1_100_000),
)  # fmt: skip


def histogram(*values: float) -> Histogram:
    filled = Histogram()
    for value in values:
        filled.record(value)
    return filled


LATENCY = histogram(*[100.0] * 960, *[900.0] * 40)
COST = histogram(*[800.0] * 950, *[4_000.0] * 45, *[90_000.0] * 5)


def test_rates_cover_graded_or_reported_tasks() -> None:
    frozen = calibrate(ARM, latency=LATENCY, cost=COST)
    assert frozen.outcomes == 1_000
    assert frozen.rates["failure"] == 0.1
    assert frozen.rates["error"] == 0.01
    assert frozen.rates["escalation"] == 0.2
    assert frozen.cost_per_success == pytest.approx(1_100_000 / 900)


def test_the_tail_edges_cut_five_and_one_percent() -> None:
    frozen = calibrate(ARM, latency=LATENCY, cost=COST)
    assert frozen.latency_edge == index(100.0)
    assert frozen.rates["latency_tail"] == 0.04
    assert frozen.cost_edge == index(2 * 4_000.0)  # twice the 99th percentile: what the cap hides
    assert frozen.rates["cost_tail"] == 0.005
    assert frozen.cost_cap_nusd is not None
    assert 4_000 <= frozen.cost_cap_nusd < 4_200


def test_the_cost_variance_is_that_of_capped_costs() -> None:
    frozen = calibrate(ARM, latency=LATENCY, cost=COST)
    calm = calibrate(ARM, latency=LATENCY, cost=histogram(*[800.0] * 1_000))
    assert calm.cost_v == pytest.approx(0.09, abs=0.001)  # only success varies: .9 * .1
    assert frozen.cost_v is not None and 0.4 < frozen.cost_v < 1


def test_it_corrects_for_sticky_units_only() -> None:
    groups = {i: Group(40, 30 if i % 8 == 0 else 1) for i in range(32)}
    assert calibrate(ARM, latency=LATENCY, cost=COST, groups=groups).deff == 1
    sticky = calibrate(ARM, latency=LATENCY, cost=COST, groups=groups, unit_is_request=False)
    assert sticky.deff > 10
    assert sticky.unit_spread == 0


def test_it_has_no_cost_per_success_without_reported_costs() -> None:
    """It is None, not 0, and an unknown figure is never within its margin."""
    free = calibrate(replace(ARM, cost_n=0, cost=0, costs=NO_COSTS), latency=LATENCY, cost=Histogram())
    assert free.cost_per_success is None
    opened = Accumulator.open(guardrails_for(), STAGES, free)
    for minute in range(20):
        opened.add(
            stratum(
                1,
                minute,
                replace(arm(100), cost_n=0, cost=0, costs=NO_COSTS),
                replace(arm(1_900), cost_n=0, cost=0, costs=NO_COSTS),
            )
        )
    [waiting] = opened.judge(1).open
    assert waiting.name == "cost_per_success"
    assert waiting.note == "No task of the candidate or the baseline has both a cost and a grade."


def test_the_declared_tolerance_is_the_latency_edge() -> None:
    declared = calibrate(ARM, latency=LATENCY, cost=COST, latency_tolerance_ms=500)
    assert declared.latency_edge == index(500.0)
    assert declared.latency_declared
    assert declared.rates["latency_tail"] == 0.04


def test_it_gives_a_candidate_that_adds_a_mechanism_three_times_the_time() -> None:
    plain = calibrate(ARM, latency=LATENCY, cost=COST, mechanisms=(), candidate_mechanisms=())
    adds = calibrate(ARM, latency=LATENCY, cost=COST, mechanisms=(), candidate_mechanisms=("escalate",))
    has = calibrate(
        ARM, latency=LATENCY, cost=COST, mechanisms=("escalate",), candidate_mechanisms=("escalate",)
    )
    assert plain.latency_edge == has.latency_edge == index(100.0)
    assert adds.latency_edge == index(300.0)
    declared = calibrate(
        ARM,
        latency=LATENCY,
        cost=COST,
        mechanisms=(),
        candidate_mechanisms=("retry",),
        latency_tolerance_ms=500,
    )
    assert declared.latency_edge == index(500.0)


def test_figures_are_unknown_without_outcomes() -> None:
    frozen = calibrate(ArmSums(), latency=Histogram(), cost=Histogram())
    assert frozen.outcomes == 0
    assert (frozen.cost_v, frozen.cost_per_success, frozen.mean_quality) == (None, None, None)
    assert (frozen.latency_edge, frozen.cost_edge, frozen.cost_cap_nusd) == (None, None, None)


def test_it_survives_json() -> None:
    frozen = calibrate(ARM, latency=LATENCY, cost=COST)
    assert Reference.from_dict(json.loads(json.dumps(frozen.as_dict()))) == frozen
