"""The weighted sum that decides a rollback, at its threshold of 20: every weight in it matters."""

import math
from dataclasses import replace

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Hold, RollBack, decide
from rollout_app.engine.evidence import ClosedWindow
from rollout_app.engine.guardrails import Guardrail, guardrails_for
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.measures.base import DEFAULT, PLAIN, Tuning
from rollout_app.engine.metrics import Metric
from rollout_app.engine.stats.combine import LOG_ROLL_BACK
from tests.support.evidence_builders import FLEET, NOW, REFERENCE, STAGES, arm, evidence, view

LN_20 = math.log(20)


def judged(
    weight: float, windows: int, tuning: Tuning = PLAIN, metric: Metric = Metric.FAILURE, **bad: float
) -> Judgement:
    """Judge one guardrail with this weight after so many windows; another one without harm has the remaining weight."""
    guardrails = [Guardrail(metric, 0.02, weight)]
    if weight < 1:
        guardrails.append(Guardrail(Metric.ERROR, 0.01, 1 - weight))
    opened = Accumulator.open(guardrails, STAGES, REFERENCE, tuning)
    for minute in range(windows):
        opened.add(ClosedWindow(1, minute, minute, arm(10, **bad), arm(190)))
    return opened.judge(1)


def first_window(weight: float, tuning: Tuning = PLAIN) -> int:
    """Return the number of the window after which it rolls back."""
    return next(n for n in range(1, 200) if judged(weight, n, tuning, failure=0.2).roll_back)


def test_it_rolls_back_from_an_evidence_of_20() -> None:
    assert math.isclose(LOG_ROLL_BACK, LN_20)
    seen = judged(1.0, 3, failure=0.2)
    for log_e, back in ((LN_20 - 1e-9, Hold), (LN_20, RollBack), (LN_20 + 1e-9, RollBack)):
        decision = decide(view(), evidence(replace(seen, log_e=log_e)), FLEET, NOW)
        assert isinstance(decision, back)


@pytest.mark.parametrize("weight", [0.05, 0.1, 0.3, 0.5])
def test_a_guardrail_with_less_weight_needs_more_evidence(weight: float) -> None:
    """Without its weight, a guardrail would need only the evidence of a single guardrail to roll back."""
    at = first_window(weight)
    assert at > first_window(1.0)
    before, after = judged(weight, at - 1, failure=0.2), judged(weight, at, failure=0.2)
    assert before.log_e < LN_20 <= after.log_e
    for judgement in (before, after):
        counted = sum(v.weight * math.exp(v.log_e_counted) for v in judgement.verdicts)
        assert math.exp(judgement.log_e) == pytest.approx(counted)
    # At the threshold, the unweighted evidence is already above 20.
    assert before.verdicts[0].log_e_counted > LN_20


def test_the_evidence_of_several_guardrails_adds_up() -> None:
    """Neither failures nor errors alone would be enough."""
    for n in range(1, 60):
        judgement = judged(0.5, n, failure=0.17, error=0.06)
        alone = [math.log(v.weight) + v.log_e_counted for v in judgement.verdicts]
        if judgement.roll_back and max(alone) < LN_20:
            return
    pytest.fail("no window at which only their sum reaches 20")


@pytest.mark.parametrize("tuning", [DEFAULT, PLAIN])
def test_the_parts_of_a_guardrail_add_up_to_one(tuning: Tuning) -> None:
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE, tuning)
    for minute in range(12):
        for stage in (1, 2):
            opened.add(ClosedWindow(stage, 60 * stage + minute, 60 * stage + minute, arm(50), arm(350)))
    for verdict in opened.judge(2).verdicts:
        assert sum(part.weight for part in verdict.parts) == pytest.approx(1)
        whole = sum(part.weight * math.exp(part.log_e) for part in verdict.parts)
        assert math.exp(verdict.log_e_harm) == pytest.approx(whole)


def test_a_part_below_the_margin_does_not_count() -> None:
    opened = Accumulator.open([Guardrail(Metric.FAILURE, 0.02, 1.0)], STAGES, REFERENCE)
    for minute in range(80):
        opened.add(ClosedWindow(3, minute, minute, arm(2_000, failure=0.09), arm(2_000)))
    small = opened.judge(3)
    assert small.verdicts[0].log_e_harm > LN_20
    assert small.log_e == -math.inf
    assert not small.harmful


def test_the_weights_of_all_guardrails_add_up_to_one() -> None:
    assert sum(guardrail.weight for guardrail in guardrails_for()) == pytest.approx(1)
    own = guardrails_for([{"metric": "failure", "weight": 3.0}, {"metric": "retry", "enabled": False}])
    assert sum(guardrail.weight for guardrail in own) == pytest.approx(1)
    assert max(own, key=lambda g: g.weight).metric is Metric.FAILURE
