"""The accumulator keeps sums, not history."""

import json
import random

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import ArmSums, ClosedWindow, Group, MinuteRow
from rollout_app.engine.guardrails import guardrails_for
from tests.support.evidence_builders import REFERENCE, STAGES, arm, ledger, stratum

RNG = random.Random(7)


def strata() -> list[ClosedWindow]:
    made = []
    for minute in range(60):
        stage = 1 + minute // 20
        n = RNG.randint(0, 40), RNG.randint(20, 300)
        bad = {"failure": RNG.random() / 5, "cost": 0.5 + RNG.random()}
        made.append(stratum(stage, minute, arm(n[0], **bad), arm(n[1])))
    return made


def test_it_judges_the_same_at_once_and_step_by_step_through_json() -> None:
    every = strata()
    at_once = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    bit_by_bit = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    for one in every:
        at_once.add(one)
        bit_by_bit.add(one)
        bit_by_bit = Accumulator.from_dict(json.loads(json.dumps(bit_by_bit.as_dict())))
    assert bit_by_bit.judge(3).as_dict() == at_once.judge(3).as_dict()


def test_the_order_of_windows_does_not_matter() -> None:
    every = strata()
    forward, backward = (Accumulator.open(guardrails_for(), STAGES, REFERENCE) for _ in range(2))
    for one in every:
        forward.add(one)
    for one in reversed(every):
        backward.add(one)
    for a, b in zip(forward.judge(3).verdicts, backward.judge(3).verdicts, strict=True):
        assert (a.result, a.n_candidate) == (b.result, b.n_candidate)
        assert [a.log_e_harm, a.log_e_safe] == pytest.approx([b.log_e_harm, b.log_e_safe])


def test_it_counts_each_minute_once() -> None:
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    rows = [MinuteRow(1, minute, arm(10), arm(90)) for minute in range(5)]
    assert len(opened.take(rows, before=3)) == 3
    assert len(opened.take(rows, before=5)) == 2
    assert opened.take(rows, before=5) == []
    assert opened.judge(1).candidate_tasks(1) == 50


def test_a_verdict_can_be_recomputed_from_its_sums() -> None:
    data = json.loads(json.dumps(ledger(looks=10, failure=0.2).judge(1).as_dict()))
    verdict = next(v for v in data["verdicts"] if v["name"] == "failure")
    [[part, sums]] = verdict["sums"]
    numerator, denominator = sums["mh"]
    assert part == "all"
    assert verdict["estimate"] == pytest.approx(numerator / denominator)
    assert (verdict["n_candidate"], sums["candidate"]) == (1_000, {"n": 1_000, "x": 200})
    assert data["strata"]["1"] == {
        "candidate_tasks": 1_000,
        "baseline_tasks": 19_000,
        "strata": 10,
        "first_minute": 0,
        "last_minute": 9,
        "candidate_graded": 1_000,
        "candidate_expected": 1_000,
        "baseline_expected": 19_000,
        "baseline_graded": 19_000,
        "candidate_split": 1_000,
        "baseline_split": 19_000,
    }


def test_lost_outcomes_cause_a_share_mismatch() -> None:
    assert ledger(looks=10, n=(100, 1_900)).judge(1).srm_log_e < 0
    assert ledger(looks=10, n=(60, 1_900)).judge(1).srm_log_e > 7


def test_the_share_of_tasks_may_vary_more_if_there_are_few_units() -> None:
    """A reference of a few minutes sees each unit once; the rollout's own baseline arm shows that there are few."""
    opened = ledger(looks=10, n=(60, 1_900))
    before = opened.judge(1).srm_log_e
    groups = {i: Group(20 if i % 4 else 600, 0) for i in range(32)}
    opened.add(ClosedWindow(2, 99, 99, ArmSums(), ArmSums(), groups))
    assert before > 7 > opened.judge(1).srm_log_e


def test_it_needs_more_evidence_if_tasks_of_a_unit_are_correlated() -> None:
    opened = ledger(looks=10, failure=0.2)
    before = opened.judge(1).log_e
    groups = {i: Group(100, 40 if i % 4 == 0 else 0) for i in range(32)}
    opened.add(ClosedWindow(1, 99, 99, ArmSums(), ArmSums(tasks=3_200), groups))
    assert opened.deff > 10
    assert opened.judge(1).log_e < before / 5


def test_it_refuses_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="format 99"):
        Accumulator.from_dict({**ledger().as_dict(), "format": 99})


def test_it_compares_only_percentage_stages() -> None:
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    opened.add(stratum(0, 1, ArmSums(), arm(500)))
    opened.add(stratum(5, 2, arm(500), ArmSums()))
    assert all(measure.tasks() == (0, 0) for measure in opened.measures.values())
    assert opened.judge(5).candidate_tasks(5) == 500
