"""The decision: roll back, hold or advance."""

import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Advance, Complete, Decision, Hold, RollBack, decide
from rollout_app.engine.evidence import (
    ArmSums,
    FleetView,
    MirrorSums,
    RolloutView,
    ShadowSums,
    Stage,
    Telemetry,
)
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.holds import Evidence, reasons_to_hold
from rollout_app.engine.judgement import Judgement, StageTally
from rollout_app.engine.metrics import Metric
from rollout_app.engine.states import State
from rollout_app.engine.verdicts import Verdict, VerdictResult
from tests.support.evidence_builders import (
    FLEET,
    NOW,
    REFERENCE,
    STAGES,
    arm,
    evidence,
    ledger,
    stratum,
    view,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "statistics.json").read_text())["decide"]
GOOD = ledger(looks=20).judge(1)
BAD = ledger(looks=20, failure=0.25).judge(1)
RENAMED = {"environment": "baseline_unhealthy"}  # the vectors have the hold code's first name
SHADOW = ShadowSums(decisions=400, agreed=350, candidate_cost_nusd=80_000, baseline_cost_nusd=100_000)


def code(decision: Decision) -> str:
    match decision:
        case Hold():
            return f"hold:{decision.reason.code}"
        case RollBack():
            return f"roll_back:{decision.code}"
    return type(decision).__name__.lower()


def decided(rollout: RolloutView, seen: Evidence, fleet: FleetView = FLEET) -> str:
    return code(decide(rollout, seen, fleet, NOW))


def verdict(result: VerdictResult, *, log_e: float = 0.0) -> Verdict:
    return Verdict(
        "failure", Metric.FAILURE, result, 80, 1_000, 0.03, None, None, log_e, 0.0, 0.02, 0.08, 1.0,
        counted=log_e > 0, gates=True,
    )  # fmt: skip


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: str(case["out"]))
def test_it_agrees_with_the_shared_vectors(case: dict[str, Any]) -> None:
    given = case["in"]
    one = verdict(
        VerdictResult.PASS if given["all_safe"] else VerdictResult.INCONCLUSIVE, log_e=given["log_E"]
    )
    tally = StageTally(given["n_stage"], 1_000, 9, 0, 9)
    judgement = Judgement((one,), given["log_E"], given["srm_log_e"], {1: tally})
    sick = given.get("baseline_unhealthy", False)
    seen = evidence(
        judgement,
        telemetry=Telemetry(20, 0 if given["missing_breach"] else 20, NOW),
        baseline_last_hour=arm(1_000, failure=0.4 if sick else 0.08),
    )
    minutes = 80 * 60 if given["timed_out"] else 20 if given["baked"] else 5
    decision = decide(view(minutes=minutes), seen, FLEET, NOW)
    kind, _, reason = case["out"].partition(":")
    reason = RENAMED.get(reason, reason)
    assert {"ADVANCE": Advance, "HOLD": Hold, "ROLL_BACK": RollBack}[kind] is type(decision)
    if reason:
        assert code(decision).endswith(f":{reason}")


def test_it_advances_when_all_is_well() -> None:
    decision = decide(view(), evidence(GOOD), FLEET, NOW)
    assert isinstance(decision, Advance)
    assert decision.reason == "All 6 guardrails are safe for 25 % after 2,000 candidate tasks at 5 %."


def test_it_rolls_back_with_the_verdicts_and_the_figures() -> None:
    decision = decide(view(), evidence(BAD), FLEET, NOW)
    assert isinstance(decision, RollBack)
    assert decision.verdicts[0].name == "failure"
    assert "Failures +17.0 points on 2,000 against 38,000 tasks, margin +2.0 points" in decision.reason


@pytest.mark.parametrize(
    "held_back_by",
    [
        {"freeze": "the freeze 'year end'"},
        {"state": State.PAUSED},
        {"minutes": 0},
    ],
)
def test_it_rolls_back_whatever_else_holds(held_back_by: dict[str, Any]) -> None:
    nobody = FleetView(routers=0, applied=0)
    assert decided(view(**held_back_by), evidence(BAD), nobody) == "roll_back:guardrail"


def test_it_rolls_back_while_calibrating() -> None:
    young = replace(REFERENCE, outcomes=10)
    assert decided(view(), evidence(BAD, reference=young)) == "roll_back:guardrail"


@pytest.mark.parametrize(("decisions", "outcomes", "back"), [(19, 0, False), (20, 0, True), (20, 1, False)])
def test_it_rolls_back_a_candidate_without_outcomes(decisions: int, outcomes: int, back: bool) -> None:
    seen = evidence(ledger().judge(1), telemetry=Telemetry(decisions, outcomes, NOW))
    assert (decided(view(), seen) == "roll_back:telemetry") is back


@pytest.mark.parametrize(
    ("rollout", "changes", "fleet", "expected"),
    [
        (view(state=State.PAUSED), {}, FLEET, "hold:paused"),
        (view(freeze="a freeze until Monday"), {}, FLEET, "hold:freeze"),
        (view(), {"reference": replace(REFERENCE, outcomes=999)}, FLEET, "hold:calibrating"),
        (view(), {"reference": replace(REFERENCE, outcomes=1_000)}, FLEET, "advance"),
        (view(), {"telemetry": Telemetry(5, 5, NOW - timedelta(seconds=601))}, FLEET, "hold:telemetry"),
        (view(), {"telemetry": Telemetry(5, 5, NOW - timedelta(seconds=600))}, FLEET, "advance"),
        (view(), {"telemetry": Telemetry()}, FLEET, "hold:telemetry"),
        # 8 % before, three margins and one standard error on top.
        (view(), {"baseline_last_hour": arm(1_000, failure=0.152)}, FLEET, "hold:baseline_unhealthy"),
        (view(), {"baseline_last_hour": arm(1_000, failure=0.151)}, FLEET, "advance"),
        (view(), {"baseline_last_hour": arm(1_000, error=0.05)}, FLEET, "hold:baseline_unhealthy"),
        (view(), {"baseline_last_hour": arm(10, failure=0.9)}, FLEET, "advance"),
        (view(minutes=14.9), {}, FLEET, "hold:evidence"),
        (view(minutes=15), {}, FLEET, "advance"),
        (view(minutes=20, paused_seconds=600), {}, FLEET, "hold:evidence"),
        (view(), {}, FleetView(0, 0), "hold:fleet"),
        (view(), {}, FleetView(100, 94), "hold:fleet"),
        (view(), {}, FleetView(100, 95), "advance"),
        (view(), {}, FleetView(100, 100, rejected=("r-7",)), "hold:fleet"),
    ],
)
def test_it_holds_at_each_border(
    rollout: RolloutView, changes: dict[str, Any], fleet: FleetView, expected: str
) -> None:
    assert decided(rollout, evidence(GOOD, **changes), fleet) == expected


@pytest.mark.parametrize(
    ("outcomes", "rate", "held"), [(1_000, 0.094, False), (1_000, 0.096, True), (10**6, 0.094, True)]
)
def test_a_rate_that_was_measured_on_few_outcomes_may_be_too_low(
    outcomes: int, rate: float, held: bool
) -> None:
    """Regression: with a margin of .2 points, one healthy baseline in seven was called unwell."""
    opened = Accumulator.open(guardrails_for([{"metric": "failure", "margin": 0.002}]), STAGES, REFERENCE)
    seen = evidence(
        opened.judge(1),
        reference=replace(REFERENCE, outcomes=outcomes),
        baseline_last_hour=arm(12_000, failure=rate),
    )
    reasons = {reason.code for reason in reasons_to_hold(view(), seen, FLEET, NOW)}
    assert ("baseline_unhealthy" in reasons) is held


def test_it_holds_without_traffic() -> None:
    decision = decide(view(), evidence(ledger().judge(1)), FLEET, NOW)
    assert isinstance(decision, Hold)
    assert decision.reason.code == "evidence"
    assert "nothing to judge by yet (0 against 0 tasks)" in decision.reason.sentence
    assert decision.outlook.startswith("The first reports of failures, cost per success")


def test_one_minute_and_one_router_are_singular() -> None:
    short = tuple(replace(stage, min_minutes=1) for stage in view().stages)
    rollout = replace(view(), stages=short, stage_entered_at=NOW)
    said = decide(rollout, evidence(GOOD), FleetView(1, 0), NOW)
    assert (
        isinstance(said, Hold)
        and said.reason.sentence == "About 1 min of this stage's minimum time of 1 min is left."
    )
    waits = decide(view(), evidence(GOOD), FleetView(1, 0), NOW)
    assert isinstance(waits, Hold) and "0 of 1 router has applied this stage" in waits.reason.sentence


def test_it_says_when_only_time_is_missing() -> None:
    rollout = replace(view(), stage_entered_at=NOW - timedelta(minutes=14, seconds=54))
    decision = decide(rollout, evidence(GOOD), FLEET, NOW)
    assert isinstance(decision, Hold)
    assert decision.reason.sentence == "About 6 s of this stage's minimum time of 15 min is left."
    assert decision.outlook == "The stage's minimum time ends in 6 s."


def test_it_lists_every_reason_to_hold() -> None:
    """A person who waits for more tasks must know that an approval and routers are missing, too."""
    stages = (*STAGES[:3], replace(STAGES[3], min_tasks=900), replace(STAGES[4], approval=True), STAGES[5])
    seen = evidence(ledger(3, looks=5, n=(100, 100)).judge(3))
    decision = decide(view(3, stages=stages), seen, FleetView(9, 4), NOW)
    assert isinstance(decision, Hold)
    assert decision.outlook.startswith("About ")
    others = decision.outlook.partition(" Other reasons to hold: ")[2]
    assert others == (
        "500 of 900 required candidate tasks have been judged in this stage. "
        "4 of 9 routers have applied this stage; 95% must. 95 % requires an approval and has none yet."
    )


def test_it_still_advances_on_late_evidence_and_says_so() -> None:
    late = decide(view(minutes=80 * 60), evidence(ledger(looks=1, n=(5, 95)).judge(1)), FLEET, NOW)
    assert isinstance(late, Hold)
    assert late.reason.sentence.startswith("80 hours in this stage; 72 are allowed. Still open: ")
    assert late.outlook.startswith("A person advances it or rolls it back. Otherwise: ")
    assert decided(view(minutes=80 * 60), evidence(GOOD)) == "advance"


def test_it_names_the_stage_whose_shares_are_wrong() -> None:
    tallies = {
        1: StageTally(candidate_split=1_000, baseline_split=1_000),
        2: StageTally(candidate_split=2_500, baseline_split=7_500),
    }
    judgement = replace(GOOD, srm_log_e=math.log(1_001), tallies=tallies)
    decision = decide(view(2), evidence(judgement), FLEET, NOW)
    assert isinstance(decision, Hold)
    assert (
        decision.reason.sentence
        == "At 5 % the candidate had 50.0% of the tasks: outcomes are lost or counted twice."
    )


@pytest.mark.parametrize(("tasks", "expected"), [(199, "hold:evidence"), (200, "complete")])
def test_it_waits_for_the_last_stages_minimum_tasks(tasks: int, expected: str) -> None:
    stages = (*STAGES[:5], replace(STAGES[5], min_tasks=200))
    judgement = replace(GOOD, tallies={5: StageTally(tasks, 0, 9, 0, 9)})
    seen = evidence(judgement, baseline_last_hour=ArmSums())
    assert decided(view(5, stages=stages), seen) == expected


def test_it_says_how_many_outcomes_calibration_still_needs() -> None:
    decision = decide(view(0), evidence(GOOD, reference=replace(REFERENCE, outcomes=400)), FLEET, NOW)
    assert isinstance(decision, Hold)
    assert decision.outlook.startswith("600 more graded outcomes of the baseline.")


def test_it_says_what_would_advance_it() -> None:
    decision = decide(view(3), evidence(ledger(3, looks=5, n=(100, 100)).judge(3)), FLEET, NOW)
    assert isinstance(decision, Hold)
    assert "the evidence that it stays below" in decision.reason.sentence
    assert decision.outlook.startswith("About ")
    assert decision.outlook.endswith("more candidate tasks, if the candidate is no worse.")


def test_it_holds_for_too_few_tasks_in_this_stage() -> None:
    """Even if earlier stages gave enough evidence, this stage must judge some tasks."""
    assert decided(view(2), evidence(ledger(1, looks=200).judge(2))) == "hold:evidence"


def test_it_holds_for_the_next_stages_approval() -> None:
    stages = (*STAGES[:2], replace(STAGES[2], approval=True), *STAGES[3:])
    assert decided(view(stages=stages), evidence(GOOD)) == "hold:approval"
    assert decided(view(stages=stages, next_stage_approved=True), evidence(GOOD)) == "advance"


@pytest.mark.parametrize(
    ("on_timeout", "hours", "expected"),
    [
        ("hold", 71.9, "hold:evidence"),
        ("hold", 72, "hold:timeout"),
        ("roll_back", 71.9, "hold:evidence"),
        ("roll_back", 72, "roll_back:timeout"),
    ],
)
def test_it_applies_on_timeout_when_the_time_is_up(on_timeout: Any, hours: float, expected: str) -> None:
    stages = (STAGES[0], replace(STAGES[1], on_timeout=on_timeout), *STAGES[2:])
    seen = evidence(ledger(looks=1, n=(5, 95)).judge(1))
    assert decided(view(stages=stages, minutes=hours * 60), seen) == expected


def test_it_never_advances_because_the_time_is_up() -> None:
    assert decided(view(minutes=1e6), evidence(ledger().judge(1))) == "hold:timeout"
    assert decided(view(minutes=1e6), evidence(GOOD)) == "advance"


def test_it_completes_after_the_full_stage() -> None:
    seen = evidence(ledger().judge(5), baseline_last_hour=ArmSums())
    assert decided(view(5, minutes=14), seen) == "hold:evidence"
    assert isinstance(decide(view(5, minutes=15), seen, FLEET, NOW), Complete)


def test_it_completes_an_immediate_plan_without_evidence() -> None:
    rollout = view(0, stages=(Stage("full"),), minutes=0)
    seen = Evidence(ledger().judge(5), replace(REFERENCE, outcomes=0), Telemetry())
    assert decided(rollout, seen) == "complete"


class TestShadow:
    def seen(self, **changes: Any) -> Evidence:
        return evidence(ledger().judge(0), **{"shadow": SHADOW, **changes})

    def test_it_advances_within_its_limits(self) -> None:
        assert decided(view(0), self.seen()) == "advance"

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"decisions": 49}, "hold:shadow"),
            ({"decisions": 50}, "advance"),
            ({"decisions": 1_000, "evaluation_errors": 1}, "advance"),
            ({"decisions": 1_000, "evaluation_errors": 2}, "hold:shadow"),
            ({"candidate_cost_nusd": 110_001}, "hold:shadow"),
            ({"candidate_cost_nusd": 110_000}, "advance"),
        ],
    )
    def test_it_is_a_gate(self, changes: dict[str, Any], expected: str) -> None:
        assert decided(view(0), self.seen(shadow=replace(SHADOW, **changes))) == expected

    def test_it_calibrates(self) -> None:
        young = replace(REFERENCE, outcomes=500)
        assert decided(view(0), self.seen(reference=young)) == "hold:calibrating"

    @pytest.mark.parametrize(
        ("mirror", "expected"),
        [
            (MirrorSums(), "hold:mirror"),
            (MirrorSums(10, 9, 0, 0, 1), "hold:mirror"),
            (MirrorSums(200, 170, 8, 8, 14), "advance"),
            (MirrorSums(200, 100, 2, 60, 38), "hold:mirror"),
        ],
    )
    def test_it_compares_mirrored_tasks(self, mirror: MirrorSums, expected: str) -> None:
        stages = (replace(STAGES[0], mirror_pcm=10_000), *STAGES[1:])
        assert decided(view(0, stages=stages), self.seen(mirror=mirror)) == expected

    @pytest.mark.parametrize(("tolerance", "expected"), [(1.0, "hold:mirror"), (5.0, "advance")])
    def test_a_stages_tolerance_applies_to_mirrored_tasks(self, tolerance: float, expected: str) -> None:
        stages = (Stage("shadow", min_tasks=50, mirror_pcm=10_000), Stage("full", tolerance=tolerance))
        mirror = MirrorSums(400, 370, 10, 10, 10)
        assert decided(view(0, stages=stages), self.seen(mirror=mirror)) == expected

    def test_it_rolls_nothing_back(self) -> None:
        assert decided(view(0), self.seen(telemetry=Telemetry(500, 0, NOW))) == "advance"


def test_its_sentences_have_all_figures() -> None:
    """No figure is missing for any verdict."""
    for judgement in (GOOD, BAD, ledger().judge(1), ledger(looks=3, cost=1.2, n=(40, 60)).judge(1)):
        for state in (State.RUNNING, State.PAUSED):
            decision = decide(view(state=state), evidence(judgement), FLEET, NOW)
            text = decision.reason.sentence if isinstance(decision, Hold) else decision.reason
            assert text.endswith((".", ")."))
            assert not any(odd in text for odd in ("nan", "None", "inf ", "{", "}"))
            assert not math.isnan(judgement.srm_log_e)


# --- the plan `evidence`: stages that may be skipped --------------------------------------------------------

LADDER = (
    *(
        Stage("percentage", share_pcm=share, min_tasks=50, skippable=True)
        for share in (2_000, 10_000, 20_000)
    ),
    Stage("full"),
)


def on_the_ladder(looks: int, **bad: float) -> Decision:
    """Return the evidence at the first share after so many strata of 100 candidate tasks."""
    opened = Accumulator.open(guardrails_for(), LADDER, REFERENCE)
    for minute in range(looks):
        opened.add(stratum(0, minute, arm(100, **bad), arm(4_900)))
    return decide(view(0, stages=LADDER), evidence(opened.judge(0)), FLEET, NOW)


@pytest.mark.parametrize(("looks", "to"), [(1, 2), (20, 3)])
def test_it_skips_to_the_largest_share_that_the_evidence_allows(looks: int, to: int) -> None:
    decision = on_the_ladder(looks)
    assert isinstance(decision, Advance) and decision.to == to


@pytest.mark.parametrize(("failure", "to"), [(0.09, 2), (0.11, 1)])
def test_it_skips_no_share_while_harm_is_suspected(failure: float, to: int) -> None:
    """Both are shown to be far below the 10 points that 20 % requires, but at 11 % harm is possible."""
    decision = on_the_ladder(4, failure=failure)
    assert isinstance(decision, Advance) and decision.to == to
