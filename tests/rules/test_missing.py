"""Missing data never makes an arm look good, and is never treated as harm by itself."""

from dataclasses import replace

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Hold, decide
from rollout_app.engine.evidence import ArmSums, ClosedWindow, GradedCosts, Late
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.stats import missing
from tests.support.evidence_builders import FLEET, NOW, REFERENCE, STAGES, arm, evidence, view


def judged(candidate: ArmSums, baseline: ArmSums, windows: int = 40) -> Judgement:
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    for minute in range(windows):
        opened.add(ClosedWindow(3, minute, minute, candidate, baseline))
    return opened.judge(3)


def held(judgement: Judgement) -> tuple[str, str]:
    decision = decide(view(3), evidence(judgement), FLEET, NOW)
    assert isinstance(decision, Hold), decision
    return decision.reason.code, decision.reason.sentence


def without_prices(sums: ArmSums, share: float) -> ArmSums:
    """Return the same tasks, with an unknown cost for that share of them."""
    known = round(sums.tasks * (1 - share))
    part = known / sums.tasks
    costs = sums.costs
    kept = GradedCosts(
        known, round(costs.successes * part), round(costs.cost * part), costs.cost_sq * part,
        round(costs.cost_on_success * part), round(costs.uncapped_cost * part),
    )  # fmt: skip
    return replace(sums, cost_n=known, costs=kept)


def test_cost_per_success_covers_tasks_with_a_known_cost_and_grade() -> None:
    """Unknown costs for half of the candidate's tasks do not make it cheaper."""
    judgement = judged(without_prices(arm(200), 0.4), arm(200))
    [verdict] = [v for v in judgement.verdicts if v.name == "cost_per_success"]
    assert verdict.estimate == pytest.approx(0, abs=0.01)
    assert verdict.result != "pass"
    code, sentence = held(judgement)
    assert code == "incomplete"
    assert "40.0 % of the candidate's tasks have no cost, 0.0 % of the baseline's." in sentence


def test_it_holds_when_one_arm_s_tasks_are_not_reported() -> None:
    code, sentence = held(judged(replace(arm(180), decided=200), replace(arm(200), decided=200)))
    assert code == "incomplete"
    assert "10.0 % of the candidate's decided tasks have not been reported" in sentence


def test_it_holds_when_the_baseline_s_tasks_have_no_grade() -> None:
    """The difference matters in both directions: a baseline that loses successes makes the candidate look good."""
    baseline = arm(200)
    blind = replace(baseline, successes=baseline.successes - 40)
    assert held(judged(arm(200), blind))[0] == "incomplete"


def test_equal_missing_shares_do_not_hold() -> None:
    some = replace(arm(180), decided=200)
    judgement = judged(some, some)
    assert judgement.incomplete == ()
    assert not judgement.open


def test_shares_that_routers_do_not_report_are_not_judged() -> None:
    judgement = judged(arm(200), arm(200))
    assert "unfinished" not in [share.kind for share in judgement.missing]


def test_it_counts_late_reports() -> None:
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    for minute in range(20):
        opened.add(ClosedWindow(3, minute, minute, arm(200), arm(200)))
    opened.take([], before=0, late={3: Late(candidate=400)})
    opened.take([], before=0, late={3: Late(candidate=400)})  # the same count again is no news
    [late] = [share for share in opened.judge(3).missing if share.kind == "late"]
    assert (late.candidate, late.baseline) == (0.1, 0.0)
    assert late.shown


def test_it_does_not_roll_back_because_of_missing_data_alone() -> None:
    """30 % of the candidate's successes are late, so the failure rate among tasks in time is higher."""
    whole = arm(200)
    lost = round(whole.successes * 0.3)
    in_time = replace(whole, tasks=200 - lost, successes=whole.successes - lost, decided=200)
    costs = whole.costs
    kept = replace(costs, n=costs.n - lost, successes=costs.successes - lost)
    # The escalations and retries of late tasks are unknown, too.
    rest = {
        name: round(getattr(whole, name) * (200 - lost) / 200)
        for name in ("escalations", "retries", "fallbacks")
    }
    in_time = replace(in_time, cost_n=200 - lost, costs=kept, **rest)
    judgement = judged(in_time, replace(whole, decided=200))
    failure = judgement.verdicts[0]
    assert failure.estimate is not None and failure.estimate > failure.margin
    assert not failure.counted
    assert not judgement.roll_back


def test_the_worst_and_the_best_case() -> None:
    found = missing.excess(0.10, 1_000.0, (100, 1_000), (0, 1_000), 2.0)
    assert found.candidate and 0.08 < found.share < 0.09
    exact = missing.excess(0.10, 1e12, (100, 1_000), (0, 1_000), 2.0)
    assert exact.share == pytest.approx(0.10, abs=1e-4)
    assert missing.safe_margin(0.02, 0.08, exact) == pytest.approx((0.02 - 0.1 * 0.92) / 0.9, abs=1e-3)
    assert missing.harm_odds_ratio(0.08, exact) == pytest.approx((0.08 / 0.82) / (0.08 / 0.92), abs=1e-3)
    assert missing.excess(0.0, 1_000.0, (0, 1_000), (0, 1_000), 2.0) == missing.NONE


def test_it_holds_when_nothing_watches_failures_quality_or_cost() -> None:
    off = [{"metric": "failure", "enabled": False}, {"metric": "cost_per_success", "enabled": False}]
    opened = Accumulator.open(guardrails_for(off), STAGES, REFERENCE)
    for minute in range(40):
        opened.add(ClosedWindow(3, minute, minute, arm(200, failure=1.0), arm(200)))
    assert held(opened.judge(3))[0] == "unguarded"
