"""decide(rollout, evidence, fleet, now) → advance | hold(reason) | roll back(reason) | complete. Pure.

The order of checks: rollback first, also for a paused rollout; then every reason to hold (`holds`). A rollout
advances only if none applies. Missing information holds it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from pointsman.plurals import plural_of
from rollout_app.engine.evidence import FleetView, RolloutView
from rollout_app.engine.explain import evidence_of, harm_of, outlook_of
from rollout_app.engine.guarded import for_display
from rollout_app.engine.holds import Evidence, HoldReason, minutes_in_stage, reasons_to_hold
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import missing_breach
from rollout_app.engine.values import value
from rollout_app.engine.verdicts import Verdict


@value(frozen=True, slots=True)
class Advance:
    """Advance to the stage with index `to`: the next one, or a later one if the plan allows skipping stages."""

    reason: str
    to: int


@value(frozen=True, slots=True)
class Hold:
    reason: HoldReason
    outlook: str = ""  # what would end the hold
    waits: bool = False  # for evidence: then the outlook gives the number of further tasks, if it is known


@value(frozen=True, slots=True)
class RollBack:
    code: str  # guardrail, telemetry, timeout
    reason: str
    verdicts: tuple[Verdict, ...] = ()


@value(frozen=True, slots=True)
class Complete:
    reason: str


Decision = Advance | Hold | RollBack | Complete


def decide(
    rollout: RolloutView,
    evidence: Evidence,
    fleet: FleetView,
    now: datetime,
    forecast: Callable[[], Judgement] | None = None,
) -> Decision:
    """Decide what to do now with a running or paused rollout.

    `forecast` adds to the judgement how many more tasks it needs. It is called only for a hold that shows it.
    """
    if harm := harm_shown(rollout, evidence):
        return harm
    if rollout.state is State.PAUSED:
        return Hold(HoldReason("paused", "A person has paused it."), "A person resumes it.")
    reasons = tuple(reasons_to_hold(rollout, evidence, fleet, now))
    if not reasons:
        return _onward(rollout, evidence)
    first, judgement = reasons[0], evidence.judgement
    waits = first.code == "evidence" and not first.outlook
    if waits and forecast:
        judgement = for_display("the forecast", forecast, judgement)
    hold = Hold(first, for_display("the outlook", lambda: _outlook(reasons, judgement), ""), waits=waits)
    return _timed_out(rollout, hold, now) or hold


def _outlook(reasons: Sequence[HoldReason], judgement: Judgement) -> str:
    """Return what would end the first reason, followed by all other reasons: each of them prevents an advance."""
    first, *others = reasons
    outlook = first.outlook or outlook_of(first.code, judgement)
    if others:
        outlook += f" Other reasons to hold: {' '.join(reason.sentence for reason in others)}"
    return outlook


def harm_shown(rollout: RolloutView, evidence: Evidence) -> RollBack | None:
    """Return the rollback that the evidence demands, or None. In shadow there is nothing to roll back."""
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
            f"{reason}. Evidence of harm: {evidence_of(judgement.log_e)} (20 is enough to roll back).",
            worst,
        )
    telemetry, lost = evidence.telemetry, evidence.telemetry.candidate_decisions
    if missing_breach(telemetry.candidate_decisions, telemetry.candidate_outcomes):
        return RollBack(
            "telemetry",
            f"{lost} {plural_of(lost, 'task was', 'tasks were')} assigned to the candidate and "
            f"{plural_of(lost, 'is', 'are')} older than the outcome lag, but none of them has an outcome, so the "
            "candidate cannot be judged.",
        )
    return None


def _timed_out(rollout: RolloutView, hold: Hold, now: datetime) -> RollBack | Hold | None:
    """Apply the plan's `on_timeout` if the stage has lasted longer than its `max_hours`. This never advances."""
    stage = rollout.current
    hours = minutes_in_stage(rollout, now) / 60
    if stage.max_hours is None or hours < stage.max_hours:
        return None
    sentence = f"{hours:.3g} hours in this stage; {stage.max_hours:g} are allowed. Still open: {hold.reason.sentence}"
    if stage.on_timeout == "roll_back":
        return RollBack("timeout", sentence)
    return Hold(
        HoldReason("timeout", sentence),
        f"A person advances it or rolls it back. Otherwise: {hold.outlook}",
        waits=hold.waits,
    )


def _onward(rollout: RolloutView, evidence: Evidence) -> Advance | Complete:
    if rollout.following is None:
        return Complete("All traffic has been on the candidate for as long as the plan requires.")
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
    """Return the index of the next stage, or of the furthest that evidence and plan allow if stages may be skipped."""
    to, furthest = rollout.stage + 1, judgement.furthest
    if furthest is None or rollout.current.mode != "percentage":
        return to
    while to < furthest and rollout.stages[to].skippable and not rollout.stages[to + 1].approval:
        to += 1
    return to
