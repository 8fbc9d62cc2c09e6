"""decide(rollout, evidence, fleet, now) → advance | hold(reason) | roll back(reason) | complete. Pure.

Read from top to bottom: what takes the candidate back comes first, and is asked in every state and stage;
then everything that can keep it where it is; only what passes all of it advances. Whatever is not known,
holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import exp

from rollout_app.engine.accumulator import Judgement
from rollout_app.engine.calibration import MIN_OUTCOMES
from rollout_app.engine.evidence import (
    SHARE_ALL,
    ArmSums,
    FleetView,
    MirrorSums,
    RolloutView,
    ShadowSums,
    Telemetry,
)
from rollout_app.engine.explain import figure, harm_of, lacking_of, outlook_of
from rollout_app.engine.guardrails import RATE_CAP, Verdict, VerdictResult
from rollout_app.engine.metrics import Metric, count
from rollout_app.engine.reference import Reference
from rollout_app.engine.shadow import gate, mirror_gate
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import LOG_AMBER, missing_breach, stage_margin
from rollout_app.engine.stats.srm import LOG_MISMATCH

STALE_AFTER_S = 600
FLEET_SHARE = 0.95
_HEALTH_FACTOR, _HEALTH_TASKS = 3, 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen: the judged strata, and what is known beside them."""

    judgement: Judgement
    reference: Reference
    telemetry: Telemetry
    baseline_last_hour: ArmSums = ArmSums()
    shadow: ShadowSums = ShadowSums()
    mirror: MirrorSums = MirrorSums()


@dataclass(frozen=True, slots=True)
class HoldReason:
    """A no carries its reason: a stable code, and one sentence with figures."""

    code: str
    sentence: str
    outlook: str = ""  # what would end it, where the code alone does not say


@dataclass(frozen=True, slots=True)
class Advance:
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    reason: HoldReason
    outlook: str = ""  # what would advance it


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
    if harm := _harm(rollout, evidence):
        return harm
    if rollout.state is State.PAUSED:
        return Hold(HoldReason("paused", "A person has paused it."), "Somebody resumes it.")
    reasons = tuple(_holds(rollout, evidence, fleet, now))
    if not reasons:
        return _onward(rollout, evidence)
    hold = Hold(reasons[0], _outlook(reasons, evidence.judgement))
    return _timed_out(rollout, hold, now) or hold


def _outlook(reasons: Sequence[HoldReason], judgement: Judgement) -> str:
    """What would end the first reason, and what then would still hold: only the end of all of them advances."""
    first, *others = reasons
    outlook = first.outlook or outlook_of(first.code, judgement)
    if others:
        outlook += f" Besides: {' '.join(reason.sentence for reason in others)}"
    return outlook


def _harm(rollout: RolloutView, evidence: Evidence) -> RollBack | None:
    """What takes the candidate back, whatever else is the case. In shadow there is nothing to take back."""
    if rollout.current.mode == "shadow":
        return None
    judgement = evidence.judgement
    if judgement.roll_back:
        worst = judgement.harmful
        reason = "; ".join(harm_of(verdict, rollout.stages) for verdict in worst[:3])
        return RollBack(
            "guardrail",
            f"{reason}. Evidence of harm: {exp(min(judgement.log_e, 700)):,.0f} (20 is enough).",
            worst,
        )
    telemetry = evidence.telemetry
    if missing_breach(telemetry.candidate_decisions, telemetry.candidate_outcomes):
        return RollBack(
            "telemetry",
            f"{telemetry.candidate_decisions} candidate decisions are older than the outcome lag and not one "
            "outcome has come: the candidate can't be judged.",
        )
    return None


def _holds(rollout: RolloutView, evidence: Evidence, fleet: FleetView, now: datetime) -> Iterator[HoldReason]:
    """Every reason to stay, the most telling first."""
    stage = rollout.current
    if rollout.freeze:
        yield HoldReason("freeze", rollout.freeze)
    yield from _distrust(rollout, evidence, now)
    if stage.mode == "shadow":
        yield from _shadow(rollout, evidence)
    if evidence.judgement.log_e >= LOG_AMBER:
        yield HoldReason("amber", _amber(rollout, evidence.judgement))
    if stage.mode == "percentage":
        yield from _inconclusive(rollout, evidence.judgement)
    yield from _too_early(rollout, evidence, now)
    yield from _fleet(fleet)
    following = rollout.following
    if following and following.approval and not rollout.next_stage_approved:
        yield HoldReason("approval", f"{following.named.capitalize()} asks for an approval and has none yet.")


def _distrust(rollout: RolloutView, evidence: Evidence, now: datetime) -> Iterator[HoldReason]:
    """Reasons not to believe the comparison at all."""
    outcomes = evidence.reference.outcomes
    if rollout.current.mode != "full" and outcomes < MIN_OUTCOMES:
        yield HoldReason(
            "calibrating",
            f"Margins are measured from {MIN_OUTCOMES:,} graded outcomes of the baseline; {outcomes:,} are known.",
            f"{MIN_OUTCOMES - outcomes:,} more graded outcomes of the baseline.",
        )
    if rollout.current.mode == "percentage" and evidence.judgement.srm_log_e >= LOG_MISMATCH:
        yield HoldReason("srm", _mismatch(rollout, evidence.judgement))
    newest = evidence.telemetry.newest_outcome_at
    if rollout.current.mode == "percentage":
        if newest is None:
            yield HoldReason("telemetry", "No outcome of this rollout has arrived yet.")
        elif (age := (now - newest).total_seconds()) > STALE_AFTER_S:
            yield HoldReason("telemetry", f"The newest outcome is {age / 60:.0f} minutes old.")
    if sick := _unhealthy(evidence):
        yield HoldReason("baseline_unhealthy", sick)


def _unhealthy(evidence: Evidence) -> str | None:
    """The baseline does badly too: it is the provider, and no time to go on."""
    margins = {v.metric: v.margin for v in evidence.judgement.verdicts if v.name == v.metric}
    for metric in (Metric.FAILURE, Metric.ERROR, Metric.FALLBACK):
        n, x = count(metric, evidence.baseline_last_hour)
        p_ref = evidence.reference.rates.get(metric, 0.0)
        limit = p_ref + _HEALTH_FACTOR * margins.get(metric, 1.0)
        if n >= _HEALTH_TASKS and x / n > limit:
            return (
                f"The baseline itself is unwell: {figure(metric)} {x / n:.1%} in the last hour, "
                f"{p_ref:.1%} before the rollout. This is the provider, not the candidate."
            )
    return None


def _shadow(rollout: RolloutView, evidence: Evidence) -> Iterator[HoldReason]:
    stage, judgement = rollout.current, evidence.judgement
    margins = {v.metric: v.margin for v in judgement.verdicts if v.name == v.metric}
    sentence = gate(
        evidence.shadow,
        min_decisions=stage.min_tasks,
        cost_margin=margins.get(Metric.COST_PER_SUCCESS),
    )
    if sentence:
        yield HoldReason("shadow", sentence)
    if stage.mirror_pcm and Metric.FAILURE in margins:
        following = rollout.following
        share = following.share_pcm / SHARE_ALL if following and following.mode == "percentage" else 1.0
        margin = margins[Metric.FAILURE]
        sentence = mirror_gate(
            evidence.mirror, margin=margin, stage_margin=stage_margin(margin, RATE_CAP, share)
        )
        if sentence:
            yield HoldReason("mirror", sentence)


def _inconclusive(rollout: RolloutView, judgement: Judgement) -> Iterator[HoldReason]:
    still = judgement.open
    if still:
        worst = min(still, key=lambda v: (v.result is not VerdictResult.NO_DATA, v.log_e_safe))
        others = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
        yield HoldReason("evidence", f"{lacking_of(worst, rollout.stages)}{others}.")


def _too_early(rollout: RolloutView, evidence: Evidence, now: datetime) -> Iterator[HoldReason]:
    stage = rollout.current
    tasks = evidence.judgement.candidate_tasks(rollout.stage)
    if stage.mode != "shadow" and tasks < stage.min_tasks:
        yield HoldReason(
            "evidence",
            f"{tasks} of {stage.min_tasks} candidate tasks judged in this stage.",
            f"{stage.min_tasks - tasks} more candidate tasks.",
        )
    minutes = _minutes_in_stage(rollout, now)
    if minutes < stage.min_minutes:
        yield HoldReason(
            "evidence",
            f"{int(minutes)} of {stage.min_minutes:g} minutes in this stage have passed.",
            f"The stage's shortest time ends in {stage.min_minutes - minutes:.1f} minutes.",
        )


def _fleet(fleet: FleetView) -> Iterator[HoldReason]:
    if fleet.rejected:
        names = ", ".join(fleet.rejected[:3])
        yield HoldReason(
            "fleet", f"{len(fleet.rejected)} routers refused the candidate's document ({names})."
        )
    if not fleet.routers:
        yield HoldReason("fleet", "No router has polled in the last two minutes.")
    elif fleet.applied < FLEET_SHARE * fleet.routers:
        yield HoldReason(
            "fleet",
            f"{fleet.applied} of {fleet.routers} routers have applied this stage, {FLEET_SHARE:.0%} must.",
        )


def _timed_out(rollout: RolloutView, hold: Hold, now: datetime) -> RollBack | Hold | None:
    """Past the stage's longest time: what the plan says. Never an advance because of it."""
    stage = rollout.current
    hours = _minutes_in_stage(rollout, now) / 60
    if stage.max_hours is None or hours < stage.max_hours:
        return None
    sentence = (
        f"{hours:.3g} hours in this stage, {stage.max_hours:g} are allowed. Still: {hold.reason.sentence}"
    )
    if stage.on_timeout == "roll_back":
        return RollBack("timeout", sentence)
    return Hold(
        HoldReason("timeout", sentence), f"A person: on, or back. Or, late as it is: {hold.outlook}".rstrip()
    )


def _onward(rollout: RolloutView, evidence: Evidence) -> Advance | Complete:
    following = rollout.following
    if following is None:
        return Complete("All traffic has been on the candidate for as long as the plan asks.")
    if rollout.current.mode == "shadow":
        return Advance(f"{evidence.shadow.decisions:,} shadow decisions are within their margins.")
    gating = [verdict for verdict in evidence.judgement.verdicts if verdict.gates]
    tasks = evidence.judgement.candidate_tasks(rollout.stage)
    return Advance(
        f"All {len(gating)} guardrails are safe for {following.named} after {tasks:,} candidate tasks at "
        f"{rollout.current.named}."
    )


def _minutes_in_stage(rollout: RolloutView, now: datetime) -> float:
    return ((now - rollout.stage_entered_at).total_seconds() - rollout.paused_seconds) / 60


def _amber(rollout: RolloutView, judgement: Judgement) -> str:
    worst = judgement.harmful
    what = harm_of(worst[0], rollout.stages) if worst else "Several guardrails"
    return (
        f"{what}. Evidence of harm is {exp(judgement.log_e):.1f}; below 5 it advances, from 20 it rolls back."
    )


def _mismatch(rollout: RolloutView, judgement: Judgement) -> str:
    """Named by the stage that strays the furthest: the evidence is of all stages, not of the present one."""
    strayed = []
    for at, tally in judgement.tallies.items():
        stage, n = rollout.stages[at], tally.candidate_tasks + tally.baseline_tasks
        if stage.mode == "percentage" and n:
            planned, share = stage.share_pcm / SHARE_ALL, tally.candidate_tasks / n
            strayed.append(
                (abs(share - planned) * (n / (planned * (1 - planned))) ** 0.5, share, stage.label)
            )
    if not strayed:
        return "The arms' shares of the tasks were not what the plan says; outcomes are lost or doubled."
    _, share, planned_share = max(strayed)
    return f"At {planned_share} the candidate had {share:.1%} of the tasks: outcomes are lost or doubled."
