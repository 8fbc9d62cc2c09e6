"""No legal sum raises: everything that routers may report can be judged and shown with finite figures."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import ArmSums, ClosedWindow, GradedCosts, Stage
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.reference import Reference
from rollout_app.engine.verdicts import Verdict

STAGES = (Stage("percentage", share_pcm=20_000), Stage("percentage", share_pcm=50_000), Stage("full"))
BOUNDS: list[dict[str, Any]] = [
    {"metric": "failure", "bound": 0.1},
    {"metric": "cost_per_success", "bound": 1000},
    {"metric": "quality"},
]


@st.composite
def arms(draw: st.DrawFn) -> ArmSums:
    """One arm's window: any counts that do not contradict each other, costs from nothing to a thousand dollars."""
    n = draw(st.sampled_from([0, 1, 2, 49, 50, 100, 5_000]))
    good = draw(st.integers(0, n))
    bad = draw(st.integers(0, n - good))
    known = draw(st.integers(0, good + bad))
    hits = draw(st.integers(max(0, known - bad), min(known, good)))
    each = draw(st.sampled_from([0, 1, 10, 10**6, 10**12]))
    costs = GradedCosts(known, hits, known * each, float(known) * each * each, hits * each, known * each)
    over = draw(st.integers(0, known))
    return ArmSums(
        tasks=n, successes=good, failures=bad, errors=draw(st.integers(0, n)), latency_n=n,
        latency_above=draw(st.integers(0, n)), cost_n=known, cost_above=over, costs=costs,
        quality_n=n, quality=0.7 * n, quality_sq=0.5 * n, cost_over=(over, over, over),
        decided=draw(st.sampled_from([None, n, 2 * n])),
    )  # fmt: skip


@st.composite
def references(draw: st.DrawFn) -> Reference:
    rate = draw(st.sampled_from([0.0, 1e-6, 0.08, 1.0]))
    return Reference(
        outcomes=5_000,
        rates=dict.fromkeys(("failure", "error", "latency_tail", "cost_tail"), rate),
        cost_v=draw(st.sampled_from([None, -1.1e-16, 2e-16, 3.3])),
        cost_per_success=draw(st.sampled_from([None, 1.0, 1e9])),
        latency_edge=100,
        cost_edge=100,
        cost_cap_nusd=draw(st.sampled_from([None, 10, 10**9])),
        cost_quantiles=(10, 20, 30),
    )


@settings(max_examples=150, deadline=None)
@given(references(), st.lists(st.tuples(arms(), arms()), min_size=1, max_size=6))
def test_no_legal_sum_raises(reference: Reference, windows: list[tuple[ArmSums, ArmSums]]) -> None:
    opened = Accumulator.open(guardrails_for(BOUNDS), STAGES, reference)
    for minute, (candidate, baseline) in enumerate(windows):
        opened.add(ClosedWindow(minute % 2, minute, minute, candidate, baseline))
    judgement = opened.judge(1)
    assert not math.isnan(judgement.log_e)
    for verdict in judgement.verdicts:
        for figure in (verdict.log_e_harm, verdict.log_e_safe, verdict.estimate, verdict.low, verdict.high):
            assert figure is None or not math.isnan(figure)


def constant(n: int, failures: int, each: int) -> ArmSums:
    good = n - failures
    costs = GradedCosts(n, good, n * each, float(n) * each * each, good * each, n * each)
    over = (n, n, n) if each > 10 else (0, 0, 0)
    return ArmSums(
        tasks=n, successes=good, failures=failures, cost_n=n, costs=costs, latency_n=n, cost_over=over
    )


def seen(windows: list[tuple[ArmSums, ArmSums]], **fields: float | None) -> Judgement:
    reference = Reference(
        outcomes=1_500,
        rates={"failure": 0.0},
        latency_edge=100,
        cost_quantiles=(10, 10, 10),
        **fields,  # type: ignore[arg-type]
    )
    opened = Accumulator.open(guardrails_for(), STAGES, reference)
    for minute, (candidate, baseline) in enumerate(windows):
        opened.add(ClosedWindow(0, minute, minute, candidate, baseline))
    return opened.judge(0)


def cost_of(judgement: Judgement) -> Verdict:
    return next(verdict for verdict in judgement.verdicts if verdict.name == "cost_per_success")


@pytest.mark.parametrize(("each", "v"), [(10, -1.1e-16), (10, 2e-16), (1_005_000, 0.0)])
def test_a_failing_candidate_with_constant_costs_is_rolled_back(each: int, v: float) -> None:
    """The reference's variance was rounded below zero, and the candidate's first failure raised on every evaluation."""
    windows = [(constant(20, 20, each), constant(80, 0, each)) for _ in range(3)]
    assert seen(windows, cost_v=v, cost_per_success=float(each)).roll_back


def test_a_candidate_with_a_single_success_is_rolled_back() -> None:
    """The ratio is in the thousands, and its interval once overflowed."""
    first = (constant(20, 19, 10), constant(80, 0, 10))
    judgement = seen([first, *[(constant(20, 20, 10), constant(80, 0, 10))] * 3], cost_v=0.0015)
    assert judgement.roll_back


def test_constant_costs_are_judged() -> None:
    """Equal costs are safe and ten times higher costs are detected, without failures or variance."""
    same = [(constant(20, 0, 10), constant(80, 0, 10)) for _ in range(30)]
    dear = [(constant(20, 0, 100), constant(80, 0, 10)) for _ in range(30)]
    assert cost_of(seen(same)).result == "pass"
    assert cost_of(seen(dear)).result == "fail"


def test_a_free_candidate_is_safe() -> None:
    free = [(constant(20, 0, 0), constant(80, 0, 1_000)) for _ in range(30)]
    verdict = cost_of(seen(free))
    assert verdict.result == "pass"
    assert verdict.estimate == -1.0


def test_a_cost_that_rises_from_zero_holds_with_a_note() -> None:
    rising = [(constant(20, 0, 5), constant(80, 0, 0)) for _ in range(30)]
    verdict = cost_of(seen(rising))
    assert verdict.result == "no_data"
    assert verdict.note == "The baseline's tasks cost nothing, so a relative change is undefined."
