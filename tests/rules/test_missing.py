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
    assert (late.candidate, late.baseline) == (400 / 4_400, 0.0)
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


def partly_silent(sums: ArmSums, metric: str, share: float, bad: float) -> ArmSums:
    """Return the same tasks, of which a share does not report the figure; a share `bad` of the bad ones does."""
    n, x = (f"{metric}_n", f"{metric}_above")
    return replace(sums, **{n: round(sums.tasks * (1 - share)), x: round(getattr(sums, x) * bad)})


@pytest.mark.parametrize(
    ("metric", "baseline"), [("latency", arm(200)), ("cost", replace(arm(2_000), cost_above=6))]
)
def test_it_does_not_roll_back_because_fast_or_cheap_tasks_do_not_report_the_figure(
    metric: str, baseline: ArmSums
) -> None:
    """Both arms are the same, but 40 % of the candidate's tasks, none of them in the tail, report no figure."""
    judgement = judged(partly_silent(baseline, metric, 0.4, 1.0), baseline, windows=100)
    [verdict] = [v for v in judgement.verdicts if v.name == f"{metric}_tail"]
    assert verdict.estimate is not None and verdict.estimate > 0
    assert not verdict.counted and not judgement.roll_back
    assert "40.0 % of the candidate's tasks have no" in verdict.note


def test_it_is_not_fast_because_slow_tasks_do_not_report_their_latency() -> None:
    """20 % of the candidate's tasks, most of the slow ones among them, report no latency."""
    judgement = judged(partly_silent(arm(200), "latency", 0.2, 0.4), arm(200))
    [verdict] = [v for v in judgement.verdicts if v.name == "latency_tail"]
    assert verdict.estimate is not None and verdict.estimate < 0
    assert verdict.result == "inconclusive"
    code, sentence = held(judgement)
    assert code == "evidence"
    assert "(20.0 % of the candidate's tasks have no latency, 0.0 % of the baseline's" in sentence


def test_equal_shares_without_latency_pass() -> None:
    silent = partly_silent(arm(200), "latency", 0.2, 0.8)
    assert not judged(silent, silent).open


def test_an_absolute_bound_on_slow_tasks_allows_for_missing_latencies() -> None:
    bound: list[dict[str, object]] = [{"metric": "latency_tail", "bound": 0.07}]
    opened = Accumulator.open(guardrails_for(bound), STAGES, REFERENCE)
    for minute in range(40):
        few = partly_silent(arm(200), "latency", 0.4, 1.0)
        opened.add(ClosedWindow(3, minute, minute, few, arm(200)))
    [verdict] = [v for v in opened.judge(3).verdicts if v.name == "latency_tail_bound"]
    assert verdict.estimate is not None and verdict.estimate > 0.07
    assert not verdict.counted and verdict.result == "inconclusive"


def test_it_does_not_roll_back_because_tasks_without_an_error_are_not_reported() -> None:
    """Both arms are the same, with errors in 8 % of the tasks; 30 % of the candidate's successes never report."""
    whole = replace(arm(200), errors=16, decided=200)
    lost = 55
    costs = replace(whole.costs, n=200 - lost, successes=whole.costs.successes - lost)
    reported = replace(
        whole, tasks=200 - lost, successes=whole.successes - lost, cost_n=200 - lost, costs=costs,
        latency_n=200 - lost, latency_above=7, escalations=15, retries=4, fallbacks=1,
    )  # fmt: skip
    judgement = judged(reported, whole)
    [verdict] = [v for v in judgement.verdicts if v.name == "error"]
    assert verdict.estimate is not None and verdict.estimate > verdict.margin
    assert not verdict.counted and not judgement.roll_back


def test_free_tasks_are_not_safe_if_the_other_costs_are_unknown() -> None:
    """Nothing costs anything where the cost is known, but 0.9 % of the candidate's tasks have none."""
    free = replace(arm(1_000, cost=0.0), cost_over=(0, 0, 0))
    judgement = judged(without_prices(free, 0.009), free)
    [verdict] = [v for v in judgement.verdicts if v.name == "cost_per_success"]
    assert verdict.result == "inconclusive"
    assert verdict.note.startswith("Known costs are 0, but 0.9 % of the candidate's tasks have no known cost")
    [verdict] = [
        v for v in judged(free, without_prices(free, 0.009)).verdicts if v.name == "cost_per_success"
    ]
    assert verdict.result == "pass"


def test_a_free_candidate_is_safe_although_a_few_of_its_costs_are_unknown() -> None:
    """At the cap, the unknown ones would still cost next to nothing compared with the baseline."""
    free = without_prices(replace(arm(1_000, cost=0.0), cost_over=(0, 0, 0)), 0.005)
    [verdict] = [v for v in judged(free, arm(1_000)).verdicts if v.name == "cost_per_success"]
    assert (verdict.result, verdict.estimate) == ("pass", -1.0)


def test_a_bound_on_cost_is_not_met_by_free_tasks_if_other_costs_are_unknown() -> None:
    bound: list[dict[str, object]] = [{"metric": "cost_per_success", "bound": 900}]
    free = replace(arm(1_000, cost=0.0), cost_over=(0, 0, 0))
    for share, result in ((0.0, "pass"), (0.02, "inconclusive")):
        opened = Accumulator.open(guardrails_for(bound), STAGES, REFERENCE)
        for minute in range(40):
            opened.add(ClosedWindow(3, minute, minute, without_prices(free, share), arm(1_000)))
        [verdict] = [v for v in opened.judge(3).verdicts if v.name == "cost_per_success_bound"]
        assert verdict.result == result


@pytest.mark.parametrize("bound", [None, 0.7])
def test_it_rolls_back_if_every_score_is_0(bound: float | None) -> None:
    opened = Accumulator.open(guardrails_for([{"metric": "quality", "bound": bound}]), STAGES, REFERENCE)
    for minute in range(10):
        useless = replace(arm(100), quality=0.0, quality_sq=0.0)
        opened.add(ClosedWindow(3, minute, minute, useless, arm(100)))
    judgement = opened.judge(3)
    [verdict] = [v for v in judgement.verdicts if v.metric == "quality"]
    assert (verdict.estimate, verdict.result) == (1.0 if bound is None else 0.0, "fail")
    assert judgement.roll_back


def test_it_is_unguarded_if_only_an_unknown_quality_would_guard_it() -> None:
    """Failures and cost are switched off, and the baseline never reported a quality to compare with."""
    off: list[dict[str, object]] = [
        {"metric": "failure", "enabled": False}, {"metric": "cost_per_success", "enabled": False},
        {"metric": "quality"},
    ]  # fmt: skip
    for known, unguarded in ((0.8, False), (None, True)):
        reference = replace(REFERENCE, mean_quality=known)
        assert Accumulator.open(guardrails_for(off), STAGES, reference).judge(3).unguarded is unguarded


def test_one_arm_s_unknown_decisions_do_not_make_the_other_seem_to_miss_tasks() -> None:
    """Every tenth task is never reported in either arm, but the baseline's router does not count its decisions."""
    candidate, baseline = replace(arm(180), decided=200), arm(180)
    assert not judged(candidate, baseline).open
    assert judged(candidate, baseline, windows=400).srm_log_e < 0


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
