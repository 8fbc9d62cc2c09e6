"""decide(rollout, evidence, fleet, now) → advance | hold(reason) | roll back(reason) | complete. Pure.

Read from top to bottom: what takes the candidate back comes first, and is asked in every state and stage;
then everything that can keep it where it is (`holds`); only what passes all of it advances. Whatever is not
known, holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout_app.engine.evidence import FleetView, RolloutView
from rollout_app.engine.explain import evidence_of, harm_of, outlook_of
from rollout_app.engine.guarded import for_display
from rollout_app.engine.holds import Evidence, HoldReason, minutes_in_stage, reasons_to_hold
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import missing_breach
from rollout_app.engine.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Advance:
    """To the stage `to` (its index): the next one, or a later one where the plan lets stages be passed over."""

    reason: str
    to: int


@dataclass(frozen=True, slots=True)
class Hold:
    reason: HoldReason
    outlook: str = ""  # what would advance it
    waits: bool = False  # for evidence: the outlook says how many more tasks that takes, if the verdicts do


@dataclass(frozen=True, slots=True)
class RollBack:
    code: str  # guardrail, telemetry, timeout
    reason: str
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Complete:
    reason: str


Decision = Advance | Hold | RollBack | Complete


def decide(rollout: RolloutView, evidence: Evidence, fleet: FleetView, now: datetime) -> Decision:
    """What to do with a running or paused rollout at this moment."""
    if harm := harm_shown(rollout, evidence):
        return harm
    if rollout.state is State.PAUSED:
        return Hold(HoldReason("paused", "A person has paused it."), "Somebody resumes it.")
    reasons = tuple(reasons_to_hold(rollout, evidence, fleet, now))
    if not reasons:
        return _onward(rollout, evidence)
    first, outlook = reasons[0], for_display("the outlook", lambda: _outlook(reasons, evidence.judgement), "")
    hold = Hold(first, outlook, waits=first.code == "evidence" and not first.outlook)
    return _timed_out(rollout, hold, now) or hold


def _outlook(reasons: Sequence[HoldReason], judgement: Judgement) -> str:
    """What would end the first reason, and what then would still hold: only the end of all of them advances."""
    first, *others = reasons
    outlook = first.outlook or outlook_of(first.code, judgement)
    if others:
        outlook += f" Besides: {' '.join(reason.sentence for reason in others)}"
    return outlook


def harm_shown(rollout: RolloutView, evidence: Evidence) -> RollBack | None:
    """What takes the candidate back, whatever else is the case. In shadow there is nothing to take back."""
    if rollout.current.mode == "shadow":
        return None
    judgement = evidence.judgement
    if judgement.roll_back:
        worst = judgement.harmful
        names = ", ".join(verdict.name for verdict in worst[:3])
        reason = for_display(
            "the reason", lambda: "; ".join(harm_of(v, rollout.stages) for v in worst[:3]), f"Harm: {names}"
        )
        return RollBack(
            "guardrail",
            f"{reason}. Evidence of harm: {evidence_of(judgement.log_e)} (20 is enough).",
            worst,
        )
    telemetry = evidence.telemetry
    if missing_breach(telemetry.candidate_decisions, telemetry.candidate_outcomes):
        return RollBack(
            "telemetry",
            f"{telemetry.candidate_decisions} tasks were decided for the candidate, are older than the outcome "
            "lag, and not one of them is finished: the candidate can't be judged.",
        )
    return None


def _timed_out(rollout: RolloutView, hold: Hold, now: datetime) -> RollBack | Hold | None:
    """Past the stage's longest time: what the plan says. Never an advance because of it."""
    stage = rollout.current
    hours = minutes_in_stage(rollout, now) / 60
    if stage.max_hours is None or hours < stage.max_hours:
        return None
    sentence = (
        f"{hours:.3g} hours in this stage, {stage.max_hours:g} are allowed. Still: {hold.reason.sentence}"
    )
    if stage.on_timeout == "roll_back":
        return RollBack("timeout", sentence)
    return Hold(
        HoldReason("timeout", sentence),
        f"A person advances it or rolls it back. Or later: {hold.outlook}",
        waits=hold.waits,
    )


def _onward(rollout: RolloutView, evidence: Evidence) -> Advance | Complete:
    if rollout.following is None:
        return Complete("All traffic has been on the candidate for as long as the plan asks.")
    to = _target(rollout, evidence.judgement)
    if rollout.current.mode == "shadow":
        return Advance(f"{evidence.shadow.decisions:,} shadow decisions are within their margins.", to)
    gating = [verdict for verdict in evidence.judgement.verdicts if verdict.gates]
    tasks = evidence.judgement.candidate_tasks(rollout.stage)
    return Advance(
        f"All {len(gating)} guardrails are safe for {rollout.stages[to].named} after {tasks:,} candidate tasks at "
        f"{rollout.current.named}.",
        to,
    )


def _target(rollout: RolloutView, judgement: Judgement) -> int:
    """The next stage, or the furthest that the evidence allows, past stages that may be skipped."""
    to, furthest = rollout.stage + 1, judgement.furthest
    if furthest is None or rollout.current.mode != "percentage":
        return to
    while to < furthest and rollout.stages[to].skippable and not rollout.stages[to + 1].approval:
        to += 1
    return to
