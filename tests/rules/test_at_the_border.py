"""Values exactly at a limit: the fewest tasks, one success, the same share, a margin of 100 %, evidence of 1."""

import math
from dataclasses import replace
from typing import Any

import pytest

from rollout_app.engine.evidence import ClosedWindow, Differing, MinuteRow, SliceSums
from rollout_app.engine.measures.base import CERTAIN, Conditions
from rollout_app.engine.measures.bounds import RatioBound
from rollout_app.engine.measures.rate_parts import RatePart
from rollout_app.engine.measures.rates import RateDifference
from rollout_app.engine.measures.ratios import RatioChange
from rollout_app.engine.measures.shares import DIFFERING, Shares
from rollout_app.engine.measures.sufficient import MissingStatistics, RateStatistics, RateStep
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import missing, rates
from rollout_app.engine.stats.ratios import Moments
from tests.support.evidence_builders import REFERENCE, arm, ledger


@pytest.mark.parametrize("silent", ["candidate_differing", "baseline_differing"])
def test_the_differing_share_needs_the_reports_of_both_arms(silent: str) -> None:
    differ = Differing(100, {"large>small": SliceSums(tasks=20)})
    window = ClosedWindow(1, 0, 0, arm(100), arm(100), candidate_differing=differ, baseline_differing=differ)
    shares = Shares()
    unknown: dict[str, Any] = {silent: None}
    shares.take(replace(window, **unknown))
    assert (DIFFERING in shares.kinds, shares.known_to_differ_or_not, shares.differing) == (False, 0, None)
    shares.take(window)
    assert (shares.kinds[DIFFERING].nt, shares.known_to_differ_or_not) == (100, 200)


@pytest.mark.parametrize(
    ("tasks", "cost", "successes", "certain"),
    [(50, 0, 1, True), (50, 0, 50, True), (49, 0, 1, False), (50, 0, 0, False), (50, 1, 1, False)],
)
def test_free_tasks_are_certainly_within_a_bound_on_cost(
    tasks: int, cost: int, successes: int, certain: bool
) -> None:
    """50 tasks (`least_cost_tasks`) cost nothing, and one is a success: cost per success is 0, below any bound."""
    measure = RatioBound(Metric.COST_PER_SUCCESS, 1_000.0, 0.1, REFERENCE)
    measure.whole.stats.candidate = Moments(tasks, cost, successes, cost * cost, cost, successes)
    found = measure.safe(1_000.0, Conditions())
    assert found == CERTAIN if certain else found < CERTAIN


def test_the_baselines_minutes_include_the_first_one_requested() -> None:
    opened = ledger()
    rows = [MinuteRow(1, minute, arm(100), arm(200 + minute)) for minute in (100, 101, 102)]
    assert len(opened.take(rows, before=103)) > 0
    found = {minute: opened.baseline_since(minute).tasks for minute in (100, 101, 102, 103)}
    assert found == {100: 300 + 301 + 302, 101: 301 + 302, 102: 302, 103: 0}


@pytest.mark.parametrize(("quality", "safe"), [(400.0, CERTAIN), (0.01, CERTAIN), (0.0, 0.0)])
@pytest.mark.parametrize("margin", [1.0, 1.5])
def test_any_score_above_0_excludes_a_loss_of_all_quality(margin: float, quality: float, safe: float) -> None:
    """Quality can fall by at most 100 %: with such a margin only scores of 0 alone are as bad."""
    measure = RatioChange(Metric.QUALITY, margin, 0.1, REFERENCE)
    measure.whole.stats.add(
        Moments(500, quality, 500, 335, quality, 500), Moments(500, 400, 500, 335, 400, 500)
    )
    assert measure.safe(margin, Conditions()) == safe
    measure.whole.stats.add(Moments(500, 400, 500, 335, 400, 500), Moments(500, 400, 500, 335, 400, 500))
    assert measure.safe(0.99, Conditions()) > 0.0


@pytest.mark.parametrize("n", [2, 49])
def test_a_few_scores_exclude_nothing(n: int) -> None:
    measure = RatioChange(Metric.QUALITY, 1.0, 0.1, REFERENCE)
    measure.whole.stats.add(Moments(n, n, n, n, n, n), Moments(500, 400, 500, 335, 400, 500))
    assert measure.safe(1.0, Conditions()) == 0.0


def test_a_part_that_lacks_as_much_as_the_whole_keeps_its_own_direction() -> None:
    """The candidate lacks 30 of 100 grades in the part and 10 overall; the baseline the other way round.

    Z_HARM is 1 and the weight 50, so one standard error is sqrt(.2 x .8 / 50). Of the difference of 20 points, .1434
    remain; divided by the 90 % known in the other arm, the excess is .1594. In the part it belongs to the candidate.
    """
    measure = RateDifference(Metric.FAILURE, 0.02, 0.1, REFERENCE, {1_000}, (2,))
    part = RatePart(RateStatistics(rates.HARM_PSIS), MissingStatistics(30, 100, 10, 100, 10.0, 50.0))
    part.stats.add((70, 21, 90, 9))
    measure.parts["since 2"] = part
    measure.whole.missing = MissingStatistics(10, 100, 30, 100, -10.0, 50.0)
    measure.whole.stats.add((90, 9, 70, 7))
    excess = (0.2 - math.sqrt(0.2 * 0.8 / 50)) / 0.9
    found = next(part for part in measure.harm(Conditions()) if part.name == "since 2")
    assert excess == pytest.approx(0.1594, abs=1e-4)
    assert found.estimate == pytest.approx(21 / 70 - 9 / 90 - excess * 21 / 70)


@pytest.mark.parametrize(("log_e", "listed"), [(-1e-9, False), (0.0, False), (1e-9, True)])
def test_an_e_value_of_one_is_no_harm(log_e: float, listed: bool) -> None:
    """An e-value of 1 (ln 1 = 0) is no evidence: a guardrail is named as harmful only above it."""
    judgement = ledger(looks=5).judge(1)
    verdict = replace(judgement.verdicts[0], counted=True, log_e_counted=log_e)
    assert replace(judgement, verdicts=(verdict,)).harmful == ((verdict,) if listed else ())


@pytest.mark.parametrize(
    ("of", "candidate", "spent", "successes", "expected"),
    [
        (missing.log_cost_best, True, 0, 1, 5),  # 5 tasks more than the one success
        (missing.log_cost_best, True, 1, 0, math.inf),
        (missing.log_cost_best, False, 1, 0, 5 * 10),  # 5 tasks of 10 nUSD more than the one nUSD
        (missing.log_cost_best, False, 0, 1, math.inf),
        (missing.log_cost_worst, True, 1, 0, 5 * 10),
        (missing.log_cost_worst, True, 0, 1, math.inf),
        (missing.log_cost_worst, False, 0, 1, 5),
        (missing.log_cost_worst, False, 1, 0, math.inf),
    ],
)
def test_missing_tasks_are_bounded_from_one_success_and_one_nano_dollar_on(
    of: Any, candidate: bool, spent: int, successes: int, expected: float
) -> None:
    excess = missing.Excess(0.1, 5.0, candidate)
    assert of(excess, 10, spent, successes) == pytest.approx(math.log1p(expected))


@pytest.mark.parametrize("differing", [Moments(), Moments(60, 0, 0)])
def test_differing_tasks_that_the_baseline_lacks_are_no_evidence_of_safety(differing: Moments) -> None:
    measure = RatioChange(Metric.COST_PER_SUCCESS, 0.1, 0.1, REFERENCE)
    few = Moments(40, 40, 36, 80, 36, 36)  # less than `least_cost_tasks`
    measure.whole.stats.add(few, few)
    measure._part(DIFFERING).stats.add(Moments(60, 60, 50, 90, 50, 50), differing)
    assert measure.safe(0.5, Conditions()) == measure.safe(0.5, Conditions(differing=0.3)) == 0.0


@pytest.mark.parametrize(
    ("metric", "margin", "before", "now"),
    [
        (Metric.ERROR, 0.01, 0.001, 0.006),
        (Metric.FAILURE, 0.02, 0.001, 0.011),
        (Metric.FAILURE, 0.02, 0.01, 0.02),
    ],
)
def test_half_a_margin_more_of_what_hardly_ever_happens_is_shown_to_be_within_the_margin(
    metric: Metric, margin: float, before: float, now: float
) -> None:
    """It held for good: the rate before the rollout was the only guess, and each bad task beyond it counted as evidence
    of the margin."""
    n = 40_000
    measure = RateDifference(metric, margin, 1.0, Reference(outcomes=5_000, rates={metric: before}), [0.5])
    counts = (n, round(n * now), n, round(n * before))
    measure.parts["all"].stats.take(RateStep(counts, measure.psis))

    assert measure.safe(margin, Conditions()) > math.log(20)
    assert measure.safe(0.45 * margin, Conditions()) < 0
