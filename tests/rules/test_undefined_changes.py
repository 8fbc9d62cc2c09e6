"""Guardrails that cannot be judged although there are thousands of reports: the reason and the outlook say why."""

from dataclasses import replace

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Hold, decide
from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.metrics import Metric
from rollout_app.engine.stats.capped import curve
from tests.support.evidence_builders import (
    FLEET,
    NOW,
    REFERENCE,
    STAGES,
    arm,
    evidence,
    stratum,
    view,
    with_graded_costs,
)

COST, QUALITY = Guardrail(Metric.COST_PER_SUCCESS, 0.1, 1), Guardrail(Metric.QUALITY, 0.02, 1)
FREE = arm(1_000, cost=0)


def held(guardrail: Guardrail, candidate: ArmSums, baseline: ArmSums, stage: int = 3) -> Hold:
    opened = Accumulator.open([guardrail], STAGES, REFERENCE)
    for minute in range(20):
        opened.add(stratum(stage, minute, candidate, baseline))
    judgement = opened.judge(stage)
    found = decide(view(stage), evidence(judgement), FLEET, NOW, lambda: opened.forecast(judgement, stage))
    assert isinstance(found, Hold) and found.reason.code == "evidence"
    return found


@pytest.mark.parametrize(
    ("guardrail", "candidate", "baseline", "why"),
    [
        (COST, arm(1_000), arm(1_000, failure=1.0), "No task of the baseline with a cost succeeded"),
        (COST, arm(1_000, failure=1.0), arm(1_000), "No task of the candidate with a cost succeeded"),
        (COST, arm(1_000), FREE, "The baseline's tasks cost nothing, so a relative change is undefined."),
        (QUALITY, arm(1_000), arm(1_000, quality=0), "The baseline's mean quality is 0, so a relative change is"),
        (QUALITY, arm(1_000, quality=0), arm(1_000, quality=0), "The baseline's mean quality is 0"),
        (replace(COST, bound=1_000.0), arm(1_000, failure=1.0), arm(1_000), "No task of the candidate with a cost"),
    ],
)  # fmt: skip
def test_it_says_why_a_change_is_undefined_and_who_ends_the_hold(
    guardrail: Guardrail, candidate: ArmSums, baseline: ArmSums, why: str
) -> None:
    """Regression: "The first reports of cost per success: there are none yet", about 40,000 of them."""
    hold = held(guardrail, candidate, baseline)
    assert why.rstrip(".") in hold.reason.sentence and "it cannot be judged" in hold.reason.sentence
    assert hold.outlook.startswith(why)
    assert (
        "A person advances the rollout or rolls it back" in hold.outlook and "absolute bound" in hold.outlook
    )


@pytest.mark.parametrize(
    ("guardrail", "silent", "why"),
    [
        (COST, replace(arm(1_000), costs=ArmSums().costs), "has both a cost and a grade"),
        (QUALITY, replace(arm(1_000), quality_n=0, quality=0, quality_sq=0), "has a score"),
    ],
)
def test_it_waits_for_the_first_reports_only_if_there_are_none(
    guardrail: Guardrail, silent: ArmSums, why: str
) -> None:
    hold = held(guardrail, silent, arm(1_000))
    assert f"No task of the candidate {why}" in hold.reason.sentence
    assert hold.outlook.endswith("there are none yet.")


def test_free_tasks_with_unknown_costs_have_an_outlook_of_their_own() -> None:
    """Half a point of unknown costs does not hold as `incomplete`, but could be a rise from nothing."""
    known = with_graded_costs(replace(arm(995, cost=0), tasks=995))
    hold = held(COST, replace(known, tasks=1_000, failures=known.failures + 5), FREE)
    assert "Known costs are 0, but 0.5 % of the candidate's tasks have no known cost" in hold.outlook


@pytest.mark.parametrize("guardrail", [COST, replace(COST, bound=1_800.0)])
def test_it_tells_the_cost_with_and_without_the_cap_if_only_a_huge_task_holds_it(
    guardrail: Guardrail,
) -> None:
    """The rule stands (a huge task may be the first of many), so the sentence has to say what it rests on."""
    reference = replace(
        REFERENCE,
        cost_curve=curve([(900.0, 1_000), (4_000.0, 9)], 5_000),
        cost_per_success=1_000.0,
        cost_v=0.3,
    )
    usual = replace(arm(1_000), cost_sq=1.3 * 1_000 * 900**2, cost_uncapped=1_000 * 900)
    one = replace(usual, cost_uncapped=usual.cost_uncapped + 20_000_000)
    opened = Accumulator.open([guardrail], STAGES, reference)
    for minute in range(20):
        opened.add(stratum(3, minute, with_graded_costs(usual if minute else one), with_graded_costs(usual)))
    judgement = opened.judge(3)
    found = decide(view(3), evidence(judgement), FLEET, NOW, lambda: opened.forecast(judgement, 3))
    assert isinstance(found, Hold)
    said = (
        "+111.1 % with all costs, +0.0 % with"
        if guardrail.bound is None
        else "with all costs, $0.000001 with"
    )
    for text in (found.reason.sentence, found.outlook):
        assert said in text and "capped at $0.000005" in text
