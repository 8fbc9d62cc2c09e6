"""Guardrails: the defaults, a workload's own, and the verdict on each kind of harm."""

import math
from dataclasses import replace
from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.explain import harm_of, lacking_of
from rollout_app.engine.guardrails import DEFAULT_GUARDRAILS, Guardrail, guardrails_for
from rollout_app.engine.metrics import Metric
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, LOG_SAFE
from rollout_app.engine.verdicts import Verdict, VerdictResult
from tests.support.evidence_builders import REFERENCE, STAGES, arm, ledger, stratum


def verdict_of(seen: Accumulator, name: str, stage: int = 1) -> Verdict:
    return next(verdict for verdict in seen.judge(stage).verdicts if verdict.name == name)


def custom(guardrail: Guardrail, looks: int, **bad: float) -> Verdict:
    opened = Accumulator.open([guardrail], STAGES, REFERENCE)
    for minute in range(looks):
        opened.add(stratum(4, minute, arm(1_000, **bad), arm(1_000)))
    return opened.judge(4).verdicts[0]


def test_it_has_the_specified_defaults() -> None:
    agreed = {
        "failure": (0.02, 0.30),
        "cost_per_success": (0.10, 0.20),
        "error": (0.01, 0.10),
        "escalation": (0.03, 0.05),
        "fallback": (0.01, 0.10),
        "retry": (0.02, 0.10),
        "latency_tail": (0.025, 0.10),
        "cost_tail": (0.002, 0.05),
    }
    assert {g.name: (g.margin, g.weight) for g in DEFAULT_GUARDRAILS} == agreed
    assert [g.name for g in DEFAULT_GUARDRAILS if not g.gates] == ["cost_tail"]


def test_a_workload_can_override_guardrails() -> None:
    own = guardrails_for(
        [
            {"metric": "failure", "margin": 0.05},
            {"metric": "escalation", "enabled": False},
            {"metric": "quality", "bound": 0.7, "weight": 0.3},
        ]
    )
    by_name = {g.name: g for g in own}
    assert by_name["failure"].margin == 0.05
    assert "escalation" not in by_name
    assert by_name["quality_bound"].bound == 0.7
    assert sum(g.weight for g in own) == pytest.approx(1)
    assert [Guardrail.from_dict(g.as_dict()) for g in own] == list(own)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "speed"},
        {"metric": "failure", "margin": 0},
        {"metric": "failure", "weight": -1},
        {"metric": "failure", "bound": 1.2},
        {"metric": "quality", "bound": 0},
    ],
)
def test_it_refuses_invalid_overrides(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"speed|margin and weight|out of range"):
        guardrails_for([wrong])


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("failure", {"failure": 0.2}),
        ("cost_per_success", {"cost": 1.5}),
        ("error", {"error": 0.08}),
        ("fallback", {"fallback": 0.08}),
        ("retry", {"retry": 0.12}),
        ("latency_tail", {"latency_tail": 0.2}),
        ("cost_tail", {"cost_tail": 0.2}),
    ],
)
def test_it_fails_only_on_its_own_harm(name: str, bad: dict[str, Any]) -> None:
    seen = ledger(looks=20, **bad)
    failed = [verdict.name for verdict in seen.judge(1).verdicts if verdict.result is VerdictResult.FAIL]
    also = {"cost_per_success"} if name == "failure" else set()  # fewer successes make each one dearer
    assert name in failed
    assert set(failed) <= {name} | also


def test_a_verdict_that_is_set_aside_is_never_a_failure() -> None:
    """Regression: a rolled-back rollout showed "Escalations: fail" next to "displayed but not judged"."""
    found = ledger(looks=20, escalation=0.25).judge(1).verdicts
    (aside,) = [verdict for verdict in found if verdict.name == "escalation"]
    assert "not judged" in aside.note and not aside.gates and not aside.counted
    assert aside.result is VerdictResult.INCONCLUSIVE


def test_all_gating_guardrails_pass_if_nothing_is_worse() -> None:
    judgement = ledger(looks=20).judge(1)
    assert judgement.open == ()
    assert not judgement.roll_back


def test_it_has_no_data_without_tasks() -> None:
    judgement = ledger().judge(1)
    assert {verdict.result for verdict in judgement.verdicts} == {VerdictResult.NO_DATA}
    assert judgement.log_e == -math.inf
    assert len(judgement.open) == 7


def test_it_has_no_data_without_a_baseline() -> None:
    opened = ledger()
    opened.add(stratum(1, 0, arm(3, failure=1.0), ArmSums()))
    assert verdict_of(opened, "failure").result is VerdictResult.NO_DATA
    assert verdict_of(opened, "failure").log_e_harm == pytest.approx(0)


def test_a_candidate_without_success_is_not_cheap() -> None:
    verdict = verdict_of(ledger(looks=20, failure=1.0), "cost_per_success")
    assert (verdict.estimate, verdict.result) == (None, VerdictResult.NO_DATA)
    assert verdict.log_e_harm == pytest.approx(0)


def test_a_rate_of_zero_in_both_arms_is_evidence() -> None:
    """Neither arm ever escalates: the comparison has no evidence, but the candidate's own rate of 0 has."""
    opened = Accumulator.open(guardrails_for(), STAGES, replace(REFERENCE, rates={}))
    for minute in range(20):
        opened.add(stratum(1, minute, arm(100, escalation=0), arm(1_900, escalation=0)))
    verdict = verdict_of(opened, "escalation")
    assert verdict.log_e_safe >= LOG_SAFE
    assert verdict.result is VerdictResult.PASS


def test_it_counts_harm_only_from_the_margin_on() -> None:
    """One point worse on a great many tasks is certain harm, but within the margin."""
    seen = ledger(stage=3, looks=80, n=(2_000, 2_000), failure=0.09)
    verdict = verdict_of(seen, "failure", stage=3)
    assert verdict.log_e_harm > LOG_ROLL_BACK
    assert not verdict.counted
    assert not seen.judge(3).roll_back


def test_it_detects_harm_that_begins_late() -> None:
    """Three good stages must not offset a bad fourth one."""
    seen = ledger(stage=1, looks=60)
    for stage in (2, 3):
        for minute in range(60):
            seen.add(stratum(stage, 100 * stage + minute, arm(200, failure=0.05), arm(200)))
    for minute in range(30):
        seen.add(stratum(4, 900 + minute, arm(190, failure=0.16), arm(100)))
    assert verdict_of(seen, "failure", 4).log_e_harm > LOG_ROLL_BACK
    assert [part.name for part in verdict_of(seen, "failure", 4).parts] == [
        "all", "since 2", "since 3", "since 4",
    ]  # fmt: skip


def test_late_harm_is_estimated_from_the_later_stages() -> None:
    """Good early stages keep the estimate since the start below the margin, but later harm is certain."""
    seen = ledger(stage=2, looks=60, n=(500, 1_500), failure=0.05)
    for minute in range(40):
        seen.add(stratum(4, 900 + minute, arm(500, failure=0.11), arm(500)))
    verdict = verdict_of(seen, "failure", 4)
    assert verdict.estimate is not None and verdict.estimate < verdict.margin
    assert verdict.counted_since == 4
    assert verdict.counted_estimate == pytest.approx(0.03)
    assert verdict.result is VerdictResult.FAIL
    assert seen.judge(4).roll_back
    assert "+3.0 points since 95 %), margin" in harm_of(verdict, STAGES)
    assert "since 95 %); the evidence that it stays below +2.0 points is" in lacking_of(verdict, STAGES)


def test_a_part_with_a_small_estimate_does_not_count() -> None:
    """Leaving out parts only lowers the evidence, so the probability of a false rollback stays bounded."""
    seen = ledger(stage=2, looks=10, n=(50, 150), failure=0.2)
    for minute in range(12):
        seen.add(stratum(4, 900 + minute, arm(500, failure=0.095), arm(500)))
    verdict = verdict_of(seen, "failure", 4)
    assert verdict.counted and verdict.counted_since is None
    assert verdict.log_e_counted < verdict.log_e_harm
    assert verdict_of(ledger(looks=20), "failure").log_e_counted == -math.inf


def test_it_forecasts_the_number_of_further_tasks() -> None:
    few = verdict_of(ledger(stage=3, looks=5, n=(100, 100)), "failure", 3)
    assert few.result is VerdictResult.INCONCLUSIVE
    assert few.needed_tasks is not None
    enough = ledger(stage=3, looks=5 + math.ceil(few.needed_tasks / 100), n=(100, 100))
    assert verdict_of(enough, "failure", 3).result is VerdictResult.PASS


def test_it_makes_no_forecast_if_the_evidence_does_not_grow() -> None:
    verdict = verdict_of(ledger(stage=4, looks=200, n=(100, 100), failure=0.12), "failure", 4)
    assert verdict.needed_tasks is None


def test_a_difference_on_few_tasks_is_treated_as_chance() -> None:
    """A forecast that extrapolated four points on 500 tasks would say that it never passes."""
    verdict = verdict_of(ledger(stage=4, looks=5, n=(100, 100), failure=0.12), "failure", 4)
    assert verdict.needed_tasks is not None
    assert 2_000 < verdict.needed_tasks < 40_000


@pytest.mark.parametrize(
    ("guardrail", "good", "bad"),
    [
        (Guardrail(Metric.FAILURE, 0.02, 1, bound=0.10), {"failure": 0.06}, {"failure": 0.14}),
        (
            Guardrail(Metric.LATENCY_TAIL, 0.025, 1, bound=0.08),
            {"latency_tail": 0.04},
            {"latency_tail": 0.15},
        ),
        (Guardrail(Metric.COST_PER_SUCCESS, 0.1, 1, bound=1_200), {"cost": 0.9}, {"cost": 1.6}),
        (Guardrail(Metric.QUALITY, 0.02, 1, bound=0.7), {"quality": 0.8}, {"quality": 0.6}),
        (Guardrail(Metric.QUALITY, 0.05, 1), {"quality": 0.8}, {"quality": 0.7}),
    ],
    ids=lambda value: value.name if isinstance(value, Guardrail) else "",
)
def test_it_judges_custom_guardrails(
    guardrail: Guardrail, good: dict[str, float], bad: dict[str, float]
) -> None:
    assert custom(guardrail, 10, **good).result is VerdictResult.PASS
    failed = custom(guardrail, 10, **bad)
    assert failed.result is VerdictResult.FAIL
    assert failed.low is not None and failed.high is not None and failed.estimate is not None
    assert failed.low < failed.estimate < failed.high
    assert custom(guardrail, 0).result is VerdictResult.NO_DATA


@pytest.mark.parametrize(
    ("bound", "before", "now", "result"),
    [
        (0.5, 0.0, 0.05, "pass"),
        (0.5, 0.0, 0.25, "pass"),
        (0.5, 0.0, 0.40, "pass"),
        (0.5, 0.0, 0.55, "fail"),
        (0.9, 0.85, 0.86, "pass"),
        (0.9, 0.85, 0.95, "fail"),
    ],
)
@pytest.mark.parametrize("stage", [1, 4])
def test_a_candidate_that_keeps_a_bound_passes_wherever_it_is_below_it(
    bound: float, before: float, now: float, result: str, stage: int
) -> None:
    """Regression: a bound of 50 % asked for less than 20 %, and 25 % counted as evidence against it."""
    guardrail = Guardrail(Metric.ESCALATION, 0.03, 1, bound=bound)
    reference = replace(REFERENCE, rates={**REFERENCE.rates, "escalation": before})
    opened = Accumulator.open([guardrail], STAGES, reference)
    for minute in range(10):
        opened.add(stratum(stage, minute, arm(1_000, escalation=now), arm(1_000, escalation=before)))
    [verdict] = opened.judge(stage).verdicts
    assert (verdict.result, verdict.stage_margin < 1) == (result, True)


def test_an_owners_bound_on_escalations_holds_for_a_cheaper_candidate_too() -> None:
    own = guardrails_for([{"metric": "escalation", "bound": 0.3}])
    opened = Accumulator.open(own, STAGES, REFERENCE)
    for minute in range(10):
        opened.add(stratum(4, minute, arm(1_000, escalation=0.6, cost=0.5), arm(1_000)))
    by_name = {verdict.name: verdict for verdict in opened.judge(4).verdicts}
    assert by_name["cost_per_success"].result is VerdictResult.PASS
    assert (by_name["escalation_bound"].result, by_name["escalation_bound"].gates) == ("fail", True)
    assert not by_name["escalation"].gates


def test_a_margin_above_the_cap_is_what_a_candidate_may_reach() -> None:
    """Regression: with a margin of 300 % for cost, a candidate 2.5 times dearer waited for "below +100 %"."""
    guardrail = Guardrail(Metric.COST_PER_SUCCESS, 3.0, 1)
    opened = Accumulator.open([guardrail], STAGES, REFERENCE)
    for minute in range(20):
        opened.add(stratum(4, minute, arm(1_000, cost=2.5), arm(1_000)))
    assert opened.judge(4).verdicts[0].result is VerdictResult.PASS


@pytest.mark.parametrize(("quality", "result"), [(0.6, "fail"), (0.71, "inconclusive")])
def test_a_bound_on_quality_is_a_floor_in_words_too(quality: float, result: str) -> None:
    verdict = custom(Guardrail(Metric.QUALITY, 0.02, 1, bound=0.7), 2, quality=quality)
    assert verdict.result == result
    said = (harm_of if result == "fail" else lacking_of)(verdict, STAGES)
    assert said.startswith("Mean quality ")
    assert ("bound 0.700" if result == "fail" else "stays above 0.700") in said


@pytest.mark.parametrize("margin", [0.02, 0.049, 0.05, 0.051, 0.5, 0.99])
def test_a_looser_margin_of_quality_is_never_stricter(margin: float) -> None:
    """Regression: from the next stage's share on, the margin was cut to 100 %, and no evidence could exclude that."""

    def result(quality: float) -> VerdictResult:
        opened = Accumulator.open([Guardrail(Metric.QUALITY, margin, 1)], STAGES, REFERENCE)
        for minute in range(20):
            opened.add(stratum(1, minute, arm(50, quality=quality), arm(950)))
        return opened.judge(0).verdicts[0].result  # an advance to 5 %

    assert result(0.8) is VerdictResult.PASS
    assert result(0.0) is VerdictResult.FAIL


def test_it_allows_the_margin_at_the_rate_that_the_baseline_has_now() -> None:
    """Regression: an odds ratio from a rate of 1 % before allowed three points at 5 % now."""
    guardrail = Guardrail(Metric.FAILURE, 0.02, 1)
    reference = replace(REFERENCE, rates={**REFERENCE.rates, "failure": 0.01})

    def result(candidate: float, baseline: float) -> VerdictResult:
        opened = Accumulator.open([guardrail], STAGES, reference)
        for minute in range(20):
            opened.add(stratum(4, minute, arm(1_000, failure=candidate), arm(1_000, failure=baseline)))
        return opened.judge(4).verdicts[0].result

    assert result(0.08, 0.05) is not VerdictResult.PASS
    assert result(0.05, 0.05) is VerdictResult.PASS


def test_one_failure_of_a_faultless_baseline_allows_no_multiple_of_the_margin() -> None:
    """The grid for units, up to an odds ratio of 100, let 2.9 % pass beside one failure of 50."""
    reference = replace(REFERENCE, rates={**REFERENCE.rates, "failure": 0.0}, sticky=True)
    opened = Accumulator.open([Guardrail(Metric.FAILURE, 0.02, 1)], STAGES, reference)
    opened.add(stratum(4, 0, arm(950, failure=28 / 950), arm(50, failure=1 / 50)))
    assert opened.judge(4).verdicts[0].result is not VerdictResult.PASS


def test_it_passes_if_nothing_failed_before_and_both_arms_fail_alike_now() -> None:
    reference = replace(REFERENCE, rates={**REFERENCE.rates, "failure": 0.0})
    opened = Accumulator.open([Guardrail(Metric.FAILURE, 0.02, 1)], STAGES, reference)
    for minute in range(20):
        opened.add(stratum(4, minute, arm(1_000, failure=0.03), arm(1_000, failure=0.03)))
    assert opened.judge(4).verdicts[0].result is VerdictResult.PASS


@pytest.mark.parametrize("weight", [5e-324, 1e-200, 1e-162])
@pytest.mark.parametrize("how", ["stored in the workload", "stored in the rollout"])
def test_a_tiny_weight_from_an_earlier_release_stops_nothing(weight: float, how: str) -> None:
    """Regression: its square is 0, and the logarithm of that raised: "Part of the evidence could not be computed"."""
    own = guardrails_for(
        [{"metric": "quality", "weight": weight}, {"metric": "quality", "weight": weight, "bound": 0.7}]
    )
    if how == "stored in the rollout":
        own = tuple(replace(g, weight=weight) if g.metric is Metric.QUALITY else g for g in own)
    opened = Accumulator.open(own, STAGES, REFERENCE)
    for minute in range(20):
        opened.add(stratum(4, minute, arm(1_000), arm(1_000)))
    judgement = opened.judge(4)
    assert judgement.broken == () and not opened.failed
    assert {verdict.result for verdict in judgement.verdicts if verdict.gates} == {VerdictResult.PASS}


def test_it_does_not_wait_for_a_figure_that_the_baseline_never_reported() -> None:
    opened = Accumulator.open(guardrails_for(), STAGES, replace(REFERENCE, latency_edge=None))
    assert "latency_tail" not in [verdict.name for verdict in opened.judge(1).open]
    assert "failure" in [verdict.name for verdict in opened.judge(1).open]
