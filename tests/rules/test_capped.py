"""The effect of the cap on a change of cost, compared with the closed form for lognormal costs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pointsman.reporting.histogram import Histogram
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.calibration import CAP_SPREAD, calibrate
from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.capped import capped_factor, curve, uncapped_factor
from rollout_app.engine.verdicts import Verdict, VerdictResult
from tests.support.evidence_builders import STAGES, stratum, with_graded_costs

COST = Guardrail(Metric.COST_PER_SUCCESS, 0.10, 1.0)


def frozen(sigma: float, n: int = 20_000) -> Reference:
    """Return a baseline with lognormal costs around 1,000 nUSD and 90 % success."""
    costs = Histogram()
    for value in 1_000 * np.exp(sigma * stats.norm.ppf((np.arange(n) + 0.5) / n)):
        costs.record(float(value))
    good = n * 9 // 10
    arm = ArmSums(
        tasks=n, successes=good, failures=n - good, cost_n=n, cost=round(n * 1_000 * math.exp(sigma**2 / 2))
    )
    return calibrate(with_graded_costs(arm), latency=costs, cost=costs)


def capped_mean(factor: float, sigma: float, cap: float) -> float:
    """Return E min(factor X, cap) for a lognormal X around 1,000."""
    z = math.log(cap / (1_000 * factor)) / sigma
    whole = 1_000 * factor * math.exp(sigma**2 / 2)
    return float(whole * stats.norm.cdf(z - sigma) + cap * stats.norm.sf(z))


def arm(reference: Reference, n: int, factor: float = 1.0, dear: float = 0.0, sigma: float = 1.2) -> ArmSums:
    """Return n tasks whose costs are the lognormal quantiles times `factor`; a share `dear` costs eight times that."""
    costs = 1_000 * factor * np.exp(sigma * stats.norm.ppf((np.arange(n) + 0.5) / n))
    if dear:
        costs[:: -round(1 / dear)] *= 8  # from the dearest down
    cut = np.minimum(costs, reference.cost_cap_nusd or math.inf)
    good = np.arange(n) % 10 > 0
    sums = ArmSums(
        tasks=n, successes=int(good.sum()), failures=int((~good).sum()), cost_n=n, cost=round(cut.sum()),
        cost_sq=float((cut**2).sum()), cost_on_success=round(cut[good].sum()), cost_uncapped=round(costs.sum()),
    )  # fmt: skip
    return with_graded_costs(sums)


def judged(
    reference: Reference, *, looks: int = 20, n: int = 1_000, factor: float = 1.0, dear: float = 0.0
) -> Verdict:
    opened = Accumulator.open([COST], STAGES, reference)
    for minute in range(looks):
        opened.add(stratum(4, minute, arm(reference, n, factor, dear), arm(reference, n)))
    return opened.judge(4).verdicts[0]


@pytest.mark.parametrize("sigma", [0.6, 1.2])
@pytest.mark.parametrize("factor", [0.3, 0.95, 1.1, 1.33, 2.0, 4.0])
def test_the_capped_factor_matches_the_lognormal(sigma: float, factor: float) -> None:
    reference = frozen(sigma)
    cap = float(reference.cost_cap_nusd or 0)
    expected = capped_mean(factor, sigma, cap) / capped_mean(1, sigma, cap)
    assert capped_factor(reference.cost_curve, factor) == pytest.approx(expected, rel=0.005)
    assert reference.cost_kept == pytest.approx(
        capped_mean(1, sigma, cap) / (1_000 * math.exp(sigma**2 / 2)), rel=0.01
    )


@given(
    st.floats(0.01, 50), st.lists(st.tuples(st.floats(1, 1e9), st.integers(1, 99)), min_size=1, max_size=30)
)
def test_the_conversion_can_be_inverted(factor: float, values: list[tuple[float, float]]) -> None:
    """If every task is above the cap, a rise cannot be seen, so those factors are excluded."""
    drawn = curve(values, cap=max(cost for cost, _ in values))
    assert [pair for pair in drawn if pair[0] == 1.0] == [(1.0, 1.0)]
    if factor < drawn[-1][0] and capped_factor(drawn, factor) < drawn[-1][1] * 0.999:
        assert uncapped_factor(drawn, capped_factor(drawn, factor)) == pytest.approx(factor, rel=1e-6)


def test_without_a_cap_factors_do_not_change() -> None:
    assert capped_factor((), 1.1) == uncapped_factor((), 1.1) == 1.1
    assert curve([], 100) == curve([(0.0, 5)], 100) == ()


def test_it_caps_heavier_tails_lower() -> None:
    light, heavy = frozen(1.2), frozen(2.0)
    for reference, sigma, share in ((light, 1.2, 0.01), (heavy, 2.0, 0.05)):
        top = (reference.cost_cap_nusd or 0) / 1_000
        assert stats.norm.sf(math.log(top) / sigma) == pytest.approx(share, rel=0.2)
    assert light.cost_v is not None and light.cost_v < CAP_SPREAD
    assert heavy.cost_uncapped_v is not None and heavy.cost_v is not None
    assert heavy.cost_uncapped_v > 5 * heavy.cost_v
    assert heavy.tail_noise > light.tail_noise >= 1


def test_it_counts_a_ten_percent_rise_although_capping_hides_part_of_it() -> None:
    reference = frozen(1.2)
    verdict = judged(reference, factor=1.101)
    sums = dict(verdict.sums)["all"]
    capped = sums["contrast"]["a"] / sums["contrast"]["b"] - 1
    assert capped < 0.095
    assert verdict.counted
    assert verdict.estimate == pytest.approx(0.101, abs=0.001)
    assert verdict.result is VerdictResult.FAIL


def test_it_does_not_call_a_ten_percent_rise_safe_because_of_capping() -> None:
    """At the margin the evidence of safety does not grow, however many tasks there are."""
    reference = frozen(1.2)
    few, many = (judged(reference, looks=looks, factor=1.0995, n=5_000) for looks in (2, 40))
    assert many.log_e_safe < few.log_e_safe < 1
    assert judged(reference, looks=40, factor=1.02, n=5_000).result is VerdictResult.PASS


def test_it_is_not_safe_if_the_uncapped_estimate_reaches_the_margin() -> None:
    """Costs rise by 15 %, all of it on the most expensive tasks; capped, the rise is below 10 %."""
    verdict = judged(frozen(1.2), looks=40, n=5_000, dear=0.02)
    sums = dict(verdict.sums)["all"]
    assert sums["contrast"]["a"] / sums["contrast"]["b"] < 1.09
    assert verdict.estimate is not None and verdict.estimate > 0.105
    assert verdict.log_e_safe == 0


def test_it_does_not_use_imprecise_uncapped_costs() -> None:
    """With too few tasks to detect 10 %, the estimate comes from capped costs, converted back."""
    reference = frozen(1.2)
    verdict = judged(reference, looks=1, n=300, dear=0.02)
    sums = dict(verdict.sums)["all"]
    whole, capped = (sums[kind]["a"] / sums[kind]["b"] for kind in ("uncapped", "contrast"))
    assert verdict.estimate == pytest.approx(uncapped_factor(reference.cost_curve, capped) - 1)
    assert verdict.estimate != pytest.approx(whole - 1, abs=0.01)


def test_it_shows_an_interval_around_the_estimate() -> None:
    for verdict in (judged(frozen(1.2), factor=1.2), judged(frozen(1.2), dear=0.02)):
        assert verdict.low is not None and verdict.high is not None and verdict.estimate is not None
        assert verdict.low <= verdict.estimate <= verdict.high


@pytest.mark.parametrize(("bound", "result"), [(1.05, VerdictResult.FAIL), (1.4, VerdictResult.PASS)])
def test_an_absolute_bound_applies_to_uncapped_costs(bound: float, result: VerdictResult) -> None:
    """The candidate costs 17 % more; the bounds are 5 and 40 % above the baseline."""
    reference = frozen(1.2)
    assert reference.cost_per_success is not None
    guardrail = replace(COST, bound=bound * reference.cost_per_success)
    opened = Accumulator.open([guardrail], STAGES, reference)
    for minute in range(20):
        opened.add(stratum(4, minute, arm(reference, 1_000, factor=1.17), arm(reference, 1_000)))
    verdict = opened.judge(4).verdicts[0]
    assert verdict.result is result
    assert verdict.estimate == pytest.approx(1.17 * reference.cost_per_success, rel=0.02)
    assert verdict.low is not None and verdict.high is not None and verdict.estimate is not None
    assert verdict.low < verdict.estimate < verdict.high
