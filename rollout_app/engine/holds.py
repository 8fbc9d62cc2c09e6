"""Every reason for which a rollout stays where it is: a no carries its reason, a code and one sentence. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import sqrt

from rollout_app.engine.calibration import outcomes_needed
from rollout_app.engine.evidence import (
    SHARE_ALL,
    ArmSums,
    FleetView,
    MirrorSums,
    RolloutView,
    ShadowSums,
    Telemetry,
)
from rollout_app.engine.explain import evidence_of, figure, harm_of, lacking_of, missing_of, units_of
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.metrics import RATE_CAP, Metric, count
from rollout_app.engine.reference import Reference
from rollout_app.engine.shadow import SecondStageCosts, gate, mirror_gate
from rollout_app.engine.stats.combine import LOG_AMBER, stage_margin
from rollout_app.engine.stats.srm import LOG_MISMATCH
from rollout_app.engine.verdicts import VerdictResult

STALE_AFTER_S = 600
FLEET_SHARE = 0.95
_HEALTH_FACTOR, _HEALTH_TASKS = 3, 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen: the judged windows, and what is known beside them."""

    judgement: Judgement
    reference: Reference
    telemetry: Telemetry
    baseline_last_hour: ArmSums = ArmSums()
    shadow: ShadowSums = ShadowSums()
    mirror: MirrorSums = MirrorSums()
    second_stage: SecondStageCosts | None = (
        None  # None: the candidate has none of its own, or it was not asked for
    )


@dataclass(frozen=True, slots=True)
class HoldReason:
    """A no carries its reason: a stable code, and one sentence with figures."""

    code: str
    sentence: str
    outlook: str = ""  # what would end it, where the code alone does not say


def reasons_to_hold(
    rollout: RolloutView, evidence: Evidence, fleet: FleetView, now: datetime
) -> Iterator[HoldReason]:
    """Every reason to stay, the most telling first."""
    stage = rollout.current
    if rollout.freeze:
        yield HoldReason("freeze", rollout.freeze)
    if broken := evidence.judgement.broken:
        yield HoldReason(
            "evaluation_failed",
            f"Not all of the evidence could be computed: {'; '.join(broken[:3])}. What could be, is judged.",
        )
    yield from _distrust(rollout, evidence, now)
    if stage.mode == "shadow":
        yield from _shadow(rollout, evidence)
    if evidence.judgement.log_e >= LOG_AMBER:
        yield HoldReason("amber", _amber(rollout, evidence.judgement))
    if stage.mode == "percentage":
        yield from _inconclusive(rollout, evidence)
    yield from _too_early(rollout, evidence, now)
    yield from _fleet(fleet)
    following = rollout.following
    if following and following.approval and not rollout.next_stage_approved:
        yield HoldReason("approval", f"{following.named.capitalize()} asks for an approval and has none yet.")


def minutes_in_stage(rollout: RolloutView, now: datetime) -> float:
    """Minutes since the stage began, without pauses."""
    return ((now - rollout.stage_entered_at).total_seconds() - rollout.paused_seconds) / 60


# --- is the comparison to be believed ----------------------------------------------------------------------


def _distrust(rollout: RolloutView, evidence: Evidence, now: datetime) -> Iterator[HoldReason]:
    """Reasons not to believe the comparison at all."""
    judgement, stage = evidence.judgement, rollout.current
    if stage.mode != "full":
        yield from _calibrating(rollout, evidence.reference)
    if judgement.unguarded and stage.mode != "full":
        yield HoldReason("unguarded", _UNGUARDED)
    if stage.mode == "percentage":
        if judgement.srm_log_e >= LOG_MISMATCH:
            yield HoldReason("srm", _mismatch(rollout, judgement))
        if mismatch := judgement.differing_mismatch:
            yield HoldReason("srm", missing_of(mismatch))
        yield from _silence(evidence.telemetry, now)
        if judgement.incomplete:
            yield HoldReason("incomplete", " ".join(missing_of(share) for share in judgement.incomplete))
    if unhealthy := _unhealthy(evidence):
        yield HoldReason("baseline_unhealthy", unhealthy)


_UNGUARDED = (
    "No guardrail watches failures, quality or cost: nothing can show that the candidate does no harm. "
    "A person has to advance it."
)


def _calibrating(rollout: RolloutView, reference: Reference) -> Iterator[HoldReason]:
    needed, known = outcomes_needed(rollout.stages, sticky=reference.sticky), reference.outcomes
    if known < needed:
        yield HoldReason(
            "calibrating",
            f"Margins are measured from {needed:,} graded outcomes of the baseline; {known:,} are known.",
            f"{needed - known:,} more graded outcomes of the baseline.",
        )


def _silence(telemetry: Telemetry, now: datetime) -> Iterator[HoldReason]:
    newest = telemetry.newest_outcome_at
    if newest is None:
        yield HoldReason("telemetry", "No outcome of this rollout has arrived yet.")
    elif (age := (now - newest).total_seconds()) > STALE_AFTER_S:
        yield HoldReason("telemetry", f"The newest outcome is {age / 60:.0f} minutes old.")


def _mismatch(rollout: RolloutView, judgement: Judgement) -> str:
    """Named by the stage that strays the furthest: the evidence is of all stages, not of the present one."""
    strayed = []
    for at, tally in judgement.tallies.items():
        stage, n = rollout.stages[at], tally.candidate_expected + tally.baseline_expected
        if stage.mode == "percentage" and n:
            planned, share = stage.share_pcm / SHARE_ALL, tally.candidate_expected / n
            strayed.append(
                (abs(share - planned) * (n / (planned * (1 - planned))) ** 0.5, share, stage.label)
            )
    if not strayed:
        return "The arms' shares of the tasks were not what the plan says; outcomes are lost or doubled."
    _, share, planned_share = max(strayed)
    return f"At {planned_share} the candidate had {share:.1%} of the tasks: outcomes are lost or doubled."


def _unhealthy(evidence: Evidence) -> str | None:
    """The baseline does badly too: it is the provider, and no time to go on.

    One standard error is allowed for: an hour of 20 tasks with two failures is no outage.
    """
    margins = {v.metric: v.margin for v in evidence.judgement.verdicts if v.name == v.metric}
    for metric in (Metric.FAILURE, Metric.ERROR, Metric.FALLBACK):
        n, x = count(metric, evidence.baseline_last_hour)
        if n < _HEALTH_TASKS:
            continue
        p_ref, rate = _usual(metric, evidence), x / n
        limit = p_ref + _HEALTH_FACTOR * margins.get(metric, 1.0) + sqrt(rate * (1 - rate) / n)
        if rate > limit:
            return (
                f"The baseline does badly itself: {figure(metric)} {rate:.1%} in the last hour, {p_ref:.1%} "
                "before the rollout. The provider is at fault, not the candidate."
            )
    return None


def _usual(metric: Metric, evidence: Evidence) -> float:
    """The rate before the rollout; of failures, at least what the units that the baseline has just now failed then."""
    p_ref = evidence.reference.rates.get(metric, 0.0)
    units = evidence.judgement.units
    level = units.baseline_level if units else None
    return p_ref if level is None or metric is not Metric.FAILURE else max(p_ref, level)


# --- what the stage must show ------------------------------------------------------------------------------


def _shadow(rollout: RolloutView, evidence: Evidence) -> Iterator[HoldReason]:
    stage, judgement = rollout.current, evidence.judgement
    margins = {v.metric: v.margin for v in judgement.verdicts if v.name == v.metric}
    sentence = gate(
        evidence.shadow,
        min_decisions=stage.min_tasks,
        cost_margin=margins.get(Metric.COST_PER_SUCCESS),
        second_stage=evidence.second_stage,
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


def _inconclusive(rollout: RolloutView, evidence: Evidence) -> Iterator[HoldReason]:
    still = evidence.judgement.open
    if still:
        worst = min(still, key=lambda v: (v.result is not VerdictResult.NO_DATA, v.log_e_safe))
        others = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
        units = units_of(evidence.judgement.units)
        yield HoldReason("evidence", f"{lacking_of(worst, rollout.stages)}{others}.{units}")


def _too_early(rollout: RolloutView, evidence: Evidence, now: datetime) -> Iterator[HoldReason]:
    stage = rollout.current
    tasks = evidence.judgement.candidate_tasks(rollout.stage)
    # No percentage is left on no data at all, whatever the plan says.
    least = max(1, stage.min_tasks) if stage.mode == "percentage" else stage.min_tasks
    if stage.mode != "shadow" and tasks < least:
        yield HoldReason(
            "evidence",
            f"{tasks} of {least} candidate tasks judged in this stage.",
            f"{least - tasks} more candidate tasks.",
        )
    minutes = minutes_in_stage(rollout, now)
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


def _amber(rollout: RolloutView, judgement: Judgement) -> str:
    worst = judgement.harmful
    what = harm_of(worst[0], rollout.stages) if worst else "Several guardrails"
    return f"{what}. Evidence of harm is {evidence_of(judgement.log_e)}; below 5 it advances, from 20 it rolls back."
