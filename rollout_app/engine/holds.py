"""The reasons for a rollout to hold. Each has a stable code and one sentence. Pure."""

from collections.abc import Iterator
from datetime import datetime
from math import sqrt

from pointsman.plurals import counted, plural_of
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
from rollout_app.engine.values import value
from rollout_app.engine.verdicts import VerdictResult

STALE_AFTER_S = 600
FLEET_SHARE = 0.95
_HEALTH_FACTOR, _HEALTH_TASKS = 3, 20


@value(frozen=True, slots=True)
class Evidence:
    """The judgement of the closed windows, and the other evidence that a decision needs."""

    judgement: Judgement
    reference: Reference
    telemetry: Telemetry
    baseline_last_hour: ArmSums = ArmSums()
    shadow: ShadowSums = ShadowSums()
    mirror: MirrorSums = MirrorSums()
    # None: the candidate has no second stage of its own, or its costs were not requested
    second_stage: SecondStageCosts | None = None
    unpriced_models: tuple[str, ...] | None = None  # of both policies; None: not asked


@value(frozen=True, slots=True)
class HoldReason:
    """Why a rollout holds: a stable code, and one sentence with figures."""

    code: str
    sentence: str
    outlook: str = ""  # what would end the hold, if the code alone does not tell


def reasons_to_hold(
    rollout: RolloutView, evidence: Evidence, fleet: FleetView, now: datetime
) -> Iterator[HoldReason]:
    """Yield every reason to hold, the most important first."""
    stage = rollout.current
    if rollout.freeze:
        yield HoldReason("freeze", rollout.freeze)
    if broken := evidence.judgement.broken:
        yield HoldReason(
            "evaluation_failed",
            f"Part of the evidence could not be computed: {'; '.join(broken[:3])}. The rest is still judged.",
        )
    yield from _distrust(rollout, evidence, now)
    if stage.mode == "shadow":
        yield from _shadow(rollout, evidence)
    if evidence.judgement.log_e >= LOG_AMBER:
        alone = stage.mode == "full" and not any(v.is_bound for v in evidence.judgement.harmful)
        yield HoldReason("amber", _amber(rollout, evidence.judgement), _ALONE if alone else "")
    if stage.mode == "percentage":
        yield from _inconclusive(rollout, evidence)
    yield from _too_early(rollout, evidence, now)
    yield from _fleet(fleet)
    following = rollout.following
    if following and following.approval and not rollout.next_stage_approved:
        yield HoldReason("approval", f"{following.named.capitalize()} requires an approval and has none yet.")


_ALONE = (
    "No baseline runs at full, so more tasks change only the evidence on absolute bounds, not this. A person completes "
    "the rollout or rolls it back."
)


def minutes_in_stage(rollout: RolloutView, now: datetime) -> float:
    """Return the minutes since the stage began, without pauses."""
    return ((now - rollout.stage_entered_at).total_seconds() - rollout.paused_seconds) / 60


# --- can the comparison be trusted? ------------------------------------------------------------------------


def _distrust(rollout: RolloutView, evidence: Evidence, now: datetime) -> Iterator[HoldReason]:
    """Yield the reasons not to trust the comparison at all."""
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
    "No guardrail watches failures, quality or cost, so no evidence can show that the candidate is safe. "
    "A person has to advance the rollout."
)


def _calibrating(rollout: RolloutView, reference: Reference) -> Iterator[HoldReason]:
    needed, known = outcomes_needed(rollout.stages, sticky=reference.sticky), reference.outcomes
    if known < needed:
        yield HoldReason(
            "calibrating",
            f"Measuring the margins takes {needed:,} graded outcomes of the baseline; there "
            f"{plural_of(known, 'is', 'are')} {known:,}.",
            f"{counted(needed - known, 'more graded outcome')} of the baseline.",
        )


def _silence(telemetry: Telemetry, now: datetime) -> Iterator[HoldReason]:
    newest = telemetry.newest_outcome_at
    if newest is None:
        yield HoldReason("telemetry", "No outcome of this rollout has arrived yet.")
    elif (age := (now - newest).total_seconds()) > STALE_AFTER_S:
        yield HoldReason("telemetry", f"The newest outcome is {age / 60:.0f} minutes old.")


def _mismatch(rollout: RolloutView, judgement: Judgement) -> str:
    """Name the stage with the largest deviation: the evidence covers all stages, not only the current one."""
    strayed = []
    for at, tally in judgement.tallies.items():
        stage, n = rollout.stages[at], tally.candidate_split + tally.baseline_split
        if stage.mode == "percentage" and n:
            planned, share = stage.share_pcm / SHARE_ALL, tally.candidate_split / n
            strayed.append(
                (abs(share - planned) * (n / (planned * (1 - planned))) ** 0.5, share, stage.label)
            )
    if not strayed:
        return "The arms' shares of the tasks differ from the plan: outcomes are lost or counted twice."
    _, share, planned_share = max(strayed)
    return (
        f"At {planned_share} the candidate had {share:.1%} of the tasks: outcomes are lost or counted twice."
    )


def _unhealthy(evidence: Evidence) -> str | None:
    """Return a sentence if the baseline fails unusually often too: the provider has a problem, so hold.

    The limit allows for one standard error of the difference: two failures among the 20 tasks of an hour are no
    outage, and a rate that was measured on 1,000 outcomes may be a point too low.
    """
    outcomes = max(1, evidence.reference.outcomes)
    margins = {v.metric: v.margin for v in evidence.judgement.verdicts if not v.is_bound}
    for metric in (Metric.FAILURE, Metric.ERROR, Metric.FALLBACK):
        n, x = count(metric, evidence.baseline_last_hour)
        if n < _HEALTH_TASKS:
            continue
        p_ref, rate = _usual(metric, evidence), x / n
        se = sqrt(rate * (1 - rate) / n + p_ref * (1 - p_ref) / outcomes)
        limit = p_ref + _HEALTH_FACTOR * margins.get(metric, 1.0) + se
        if rate > limit:
            return (
                f"The baseline has problems too: {figure(metric)} {rate:.1%} in the last hour, {p_ref:.1%} "
                "before the rollout. The likely cause is the provider, not the candidate."
            )
    return None


def _usual(metric: Metric, evidence: Evidence) -> float:
    """Return the rate before the rollout. For failures, use at least the past rate of the baseline's present units."""
    p_ref = evidence.reference.rates.get(metric, 0.0)
    units = evidence.judgement.units
    level = units.baseline_level if units else None
    return p_ref if level is None or metric is not Metric.FAILURE else max(p_ref, level)


# --- has the stage shown enough? ---------------------------------------------------------------------------


def _shadow(rollout: RolloutView, evidence: Evidence) -> Iterator[HoldReason]:
    stage, judgement = rollout.current, evidence.judgement
    margins = {v.metric: v.margin for v in judgement.verdicts if not v.is_bound}
    sentence = gate(
        evidence.shadow,
        min_decisions=stage.min_tasks,
        cost_margin=margins.get(Metric.COST_PER_SUCCESS),
        second_stage=evidence.second_stage,
        unpriced_models=evidence.unpriced_models,
    )
    if sentence:
        yield HoldReason("shadow", sentence)
    if stage.mirror_pcm and Metric.FAILURE in margins:
        following = rollout.following
        share = following.harm_share if following else 1.0
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
        others = f"; and {counted(len(still) - 1, 'more guardrail')}" if len(still) > 1 else ""
        units = units_of(evidence.judgement.units)
        yield HoldReason("evidence", f"{lacking_of(worst, rollout.stages)}{others}.{units}")


def _too_early(rollout: RolloutView, evidence: Evidence, now: datetime) -> Iterator[HoldReason]:
    stage = rollout.current
    tasks = evidence.judgement.candidate_tasks(rollout.stage)
    # A percentage stage never advances without any data, even if its plan asks for no tasks.
    least = max(1, stage.min_tasks) if stage.mode == "percentage" else stage.min_tasks
    if stage.mode != "shadow" and tasks < least:
        yield HoldReason(
            "evidence",
            f"{tasks} of {least} "
            f"{plural_of(least, 'required candidate task has', 'required candidate tasks have')} been judged in "
            "this stage.",
            f"{counted(least - tasks, 'more candidate task')}.",
        )
    minutes = minutes_in_stage(rollout, now)
    if minutes < stage.min_minutes:
        yield HoldReason(
            "evidence",
            f"About {_length(stage.min_minutes - minutes)} of this stage's minimum time of "
            f"{_length(stage.min_minutes)} is left.",
            f"The stage's minimum time ends in {_length(stage.min_minutes - minutes)}.",
        )


def _length(minutes: float) -> str:
    """Format a time that is not over, so never as 0: `30 s`, `12 min`, `2 h 5 min`."""
    if minutes < 1:
        return f"{max(1, round(minutes * 60))} s"
    hours, rest = divmod(round(minutes), 60)
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{rest} min"] if rest or not hours else [])])


def _fleet(fleet: FleetView) -> Iterator[HoldReason]:
    if fleet.rejected:
        names = ", ".join(fleet.rejected[:3])
        yield HoldReason(
            "fleet", f"{counted(len(fleet.rejected), 'router')} rejected the candidate's document ({names})."
        )
    if not fleet.routers:
        yield HoldReason(
            "fleet",
            "No router has polled in the last two minutes.",
            "Routers poll again: check that they run and reach this server.",
        )
    elif fleet.applied < FLEET_SHARE * fleet.routers:
        yield HoldReason(
            "fleet",
            f"{fleet.applied} of {counted(fleet.routers, 'router has', 'routers have')} applied this stage; "
            f"{FLEET_SHARE:.0%} must.",
        )


def _amber(rollout: RolloutView, judgement: Judgement) -> str:
    worst = judgement.harmful
    what = harm_of(worst[0], rollout.stages) if worst else "Several guardrails"
    return (
        f"{what}. Evidence of harm is {evidence_of(judgement.log_e)}: the rollout can advance below 5, and rolls "
        "back from 20."
    )
