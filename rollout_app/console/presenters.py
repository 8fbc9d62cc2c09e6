"""Prepare what a rollout's page shows, in few queries: stages, shadow report and guardrails. Reads only."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.web.display import (
    NONE,
    THIN,
    count,
    money,
    p_value,
    percent,
    plural,
    points,
    share,
    signed,
    span,
)
from rollout_app.console.charts import IntervalPicture, interval_picture
from rollout_app.console.kept_sums import kept_slots
from rollout_app.engine.evidence import SHARE_ALL, MirrorSums, Stage
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.metrics import RATIOS
from rollout_app.engine.shadow import shown_report
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, stage_margin
from rollout_app.engine.stats.paired import difference_interval, exact_p
from rollout_app.engine.verdicts import Verdict
from rollout_app.evaluation import evaluations
from rollout_app.models import Rollout
from rollout_app.outcomes import minute_totals

# --- stages -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageStep:
    """One stage as the page draws it. `css` says whether it is past, current or ahead, and its condition."""

    name: str
    detail: str
    css: str


def stage_steps(rollout: Rollout) -> list[StageStep]:
    return [
        StageStep(stage_name(stage), _needs(stage), _step_css(rollout, at))
        for at, stage in enumerate(rollout.stages)
    ]


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage as an approver sees it. `enters`: the harm that must be excluded before it, with its factor."""

    name: str
    needs: str
    enters: str


def planned_stages(rollout: Rollout) -> list[PlannedStage]:
    return [
        PlannedStage(stage_name(stage), _needs(stage), _enters(rollout, at))
        for at, stage in enumerate(rollout.stages)
    ]


def _enters(rollout: Rollout, at: int) -> str:
    """`×10: Failures 20.0 points, Cost per success 100.0 %`: the margins, over the share of traffic, times the
    tolerance.
    """
    if not at or rollout.stages[at - 1]["mode"] != "percentage":
        return "no task of the candidate is judged before this stage"
    of = Stage.from_dict(rollout.stages[at]).harm_share
    known = [Guardrail.from_dict(each) for each in rollout.guardrails]
    limits = [
        f"{one.metric.spec.label} "
        + figure_writer(one.metric, absolute=False)(stage_margin(one.margin, one.metric.spec.cap, of)).lstrip(
            "+"
        )
        for one in known
        if one.gates and one.bound is None
    ]
    return f"×{1 / of:.3g}: {', '.join(limits)}" if limits else "no guardrail gates it"


def _needs(stage: Mapping[str, Any]) -> str:
    needs = []
    if stage.get("min_minutes"):
        needs.append(f"at least {span(stage['min_minutes'] * 60)}")
    if stage.get("min_tasks"):
        needs.append(plural(stage["min_tasks"], "decision" if stage["mode"] == "shadow" else "task"))
    if stage.get("approval"):
        needs.append("an approval")
    return ", ".join(needs)


def _step_css(rollout: Rollout, at: int) -> str:
    state = State(rollout.state)
    if state is State.COMPLETED or (rollout.started_at and at < rollout.stage):
        return "pm-past"
    if not rollout.started_at or at > rollout.stage:
        return ""
    if state in (State.ROLLING_BACK, State.ROLLED_BACK, State.ABORTED):
        return "pm-now pm-failed"
    return "pm-now pm-held" if state is State.PAUSED else "pm-now pm-moving"


def served_share(rollout: Rollout) -> str:
    """Describe the candidate's share of traffic under this rollout; for an ended one, what it left behind."""
    if rollout.state not in (State.RUNNING, State.PAUSED):
        return "everything, when it ended" if rollout.state == State.COMPLETED else "nothing"
    stage = rollout.stages[rollout.stage]
    if stage["mode"] == "percentage":
        return f"{share(stage['share_pcm'])} of tasks"
    return "no traffic (shadow: decisions are only compared)" if stage["mode"] == "shadow" else "everything"


_BLUNT_FROM = 2.0  # show the caveat if a stage needs this many times the tasks of a 50 % stage


def comparison_caveat(rollout: Rollout) -> str:
    """Return a warning if the current stage can detect little or nothing; otherwise empty."""
    if rollout.state not in (State.RUNNING, State.PAUSED):
        return ""
    stage = Stage.from_dict(rollout.stages[rollout.stage])
    if stage.mode == "full":
        return "All traffic is on the candidate. Nothing is compared any more, so there is no automatic rollback."
    part = stage.share_pcm / SHARE_ALL
    if stage.mode == "shadow" or part < 0.5 or (times := 0.25 / (part * (1 - part))) < _BLUNT_FROM:
        return ""
    return (
        f"Only {share(SHARE_ALL - stage.share_pcm)} of the tasks stay on the baseline for comparison. Harm that starts "
        f"now takes about {times:.0f} times as many tasks to detect as at 50{THIN}%."
    )


# --- shadow -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """What the candidate decided in shadow: labelled figures, and the shift of the route mix."""

    facts: list[tuple[str, str]]
    shifts: list[tuple[str, str]]  # model, change of its share


def shadow_figures(rollout: Rollout) -> ShadowFigures | None:
    """Return None if the rollout has no shadow stage, or nothing was reported for it yet."""
    if rollout.stages[0]["mode"] != "shadow":
        return None
    days = kept_slots(
        rollout, "shadow", 86_400, lambda since: minute_totals.shadow_and_mirror_by_day(rollout, since)
    )
    shadow, mirror = minute_totals.together(days.values())
    report = shown_report(shadow, mirror)
    if not report.decisions:
        return None
    costs = f"{money(report.baseline_cost)} → {money(report.candidate_cost)}"
    facts = [
        ("Decisions compared", count(report.decisions)),
        ("Both chose the same first model", percent(report.agreement)),
        ("Would start on another model", percent(report.route_shift)),
        ("Projected cost per task, first calls", costs),
        ("Evaluation errors", percent(report.error_rate, 2)),
    ]
    if report.cost_change is not None:
        facts.insert(4, ("Change in cost", signed(percent(abs(report.cost_change)), report.cost_change)))
    if escalated := _may_be_escalated(rollout, shadow.candidate_routes):
        facts.append(escalated)
    facts += _mirrored(mirror)
    return ShadowFigures(facts, [(model, points(change)) for model, change in report.shifts.items()])


def _may_be_escalated(rollout: Rollout, routes: Mapping[str, int]) -> tuple[str, str] | None:
    """Return the share of decisions that the candidate may escalate to a stronger model after the first answer."""
    escalate = rollout.candidate.document.get("escalate")
    decisions = sum(routes.values())
    if not (escalate and escalate.get("max", 1) and decisions):
        return None
    most = (decisions - routes.get(escalate["to"], 0)) / decisions
    return (
        f"May then be escalated to {escalate['to']}",
        f"0 to {percent(most)}, unknown until they are tried",
    )


def _mirrored(mirror: MirrorSums) -> list[tuple[str, str]]:
    """Compare cheap and strong model on the tasks that both ran."""
    stopped = _mirrors_stopped(mirror)
    if not mirror.n:
        return stopped
    lost, won = mirror.only_baseline, mirror.only_candidate
    low, high = difference_interval(mirror.n, lost, won) or (0.0, 0.0)
    spent = money(mirror.candidate_cost_nusd) if mirror.candidate_cost_nusd else "not known"
    return [
        (
            f"Success on {count(mirror.n)} mirrored tasks",
            f"{points((won - lost) / mirror.n)} ({points(low)} to {points(high)}; exact test "
            f"{p_value(exact_p(lost, won))})",
        ),
        ("Spent on mirrors", spent),
        *stopped,
    ]


def _mirrors_stopped(mirror: MirrorSums) -> list[tuple[str, str]]:
    """Count mirrors without an answer and mirrors that routers stopped; empty if there were none."""
    facts = (
        ("Mirrors without an answer", mirror.failed),
        ("Not mirrored, because mirrors failed or hung", mirror.braked),
    )
    return [(label, plural(tasks, "task")) for label, tasks in facts if tasks]


# --- guardrails ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GuardrailRow:
    """One guardrail at the last evaluation. `harm` and `safe`: percent of the evidence needed to decide (ln E
    of ln 20).
    """

    label: str
    verdict: str
    estimate: str
    between: str
    margin: str
    required: str  # the margin for the move that is judged, if different: a small share tolerates more harm
    picture: IntervalPicture | None
    tone: str
    harm: int
    safe: int
    gates: bool
    needed: int | None
    hurt: tuple[str, ...] = ()  # the endpoints and route pairs named as hurt, each with its figure
    note: str = ""  # why it is not judged, or the effect of missing data


def guardrail_rows(rollout: Rollout) -> list[GuardrailRow]:
    """Return the guardrails at the last evaluation, largest weight first; before the first, those that will be
    judged.
    """
    if not rollout.evidence:
        return [_unjudged(Guardrail.from_dict(data)) for data in rollout.guardrails]
    judged = evaluations.judged(rollout).verdicts
    return [
        _guardrail_row(verdict, _judged_for(rollout), advances=_may_advance(rollout))
        for verdict in sorted(judged, key=lambda v: (-v.weight, v.name))
    ]


def _judged_for(rollout: Rollout) -> str | None:
    """Return the stage that the verdicts are about: the next one, or the last once reached; None if it ended before."""
    at_last = rollout.stage + 1 >= len(rollout.stages)
    if not (at_last or _may_advance(rollout)):
        return None
    return stage_name(rollout.stages[-1 if at_last else rollout.stage + 1])


def _may_advance(rollout: Rollout) -> bool:
    return rollout.state in (State.RUNNING, State.PAUSED) and rollout.stage + 1 < len(rollout.stages)


def _unjudged(guardrail: Guardrail) -> GuardrailRow:
    write = figure_writer(guardrail.metric, absolute=guardrail.bound is not None)
    limit = guardrail.margin if guardrail.bound is None else guardrail.bound
    label = guardrail.metric.spec.label
    margin = write(limit).lstrip("+")
    return GuardrailRow(label, "no_data", NONE, "", margin, "", None, "quiet", 0, 0, guardrail.gates, None)


def _guardrail_row(verdict: Verdict, judged_for: str | None, *, advances: bool) -> GuardrailRow:
    absolute = verdict.is_bound
    write = figure_writer(verdict.metric, absolute=absolute)
    estimate, low, high, limit = verdict.estimate, verdict.low, verdict.high, verdict.margin
    between, picture = "", None
    if estimate is not None and low is not None and high is not None:
        between = f"{write(low)} to {write(high)}".replace(f"{THIN}points to", " to")
        picture = interval_picture(estimate, low, high, zero=None if absolute else 0.0, margin=limit)
    required = write(verdict.stage_margin)
    counts = verdict.log_e_counted + math.log(verdict.weight) if verdict.counted else None
    return GuardrailRow(
        label=verdict.metric.spec.label + (" (absolute)" if absolute else ""),
        verdict=verdict.result,
        estimate=NONE if estimate is None else write(estimate),
        between=between,
        margin=write(limit).lstrip("+"),
        required=f"{required.lstrip('+')} for {judged_for}"
        if judged_for and verdict.gates and required != write(limit)
        else "",
        picture=picture,
        tone={"pass": "good", "fail": "bad", "inconclusive": "warn"}.get(verdict.result, "quiet"),
        harm=_hundredths(counts),
        safe=_hundredths(verdict.log_e_safe),
        gates=verdict.gates,
        needed=verdict.needed_tasks if advances else None,
        hurt=tuple(
            one.name if one.estimate is None else f"{one.name} ({write(one.estimate)})"
            for one in verdict.hurt
        ),
        note=verdict.note,
    )


def _hundredths(log_e: float | None) -> int:
    """Return percent of the evidence needed to decide (E = 20): 0 … 100."""
    return round(min(max((log_e or 0.0) / LOG_ROLL_BACK, 0.0), 1.0) * 100)


def figure_writer(metric: str, *, absolute: bool) -> Callable[[float], str]:
    """Return a formatter for a guardrail's figures: differences with a sign, absolute figures without."""
    if absolute:
        return money if metric == "cost_per_success" else percent
    if metric in RATIOS:
        return lambda x: signed(percent(abs(x)), round(x, 4))
    return points


# --- cached evidence ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RolloutEvidence:
    """The result of an evaluation, valid until the next one."""

    guardrails: list[GuardrailRow]
    shadow: ShadowFigures | None


_KEPT: dict[tuple[Any, ...], RolloutEvidence] = {}
_KEPT_AT_MOST = 200


def evidence_of(rollout: Rollout) -> RolloutEvidence:
    """Return the evidence, cached until the next evaluation: judging takes milliseconds, and open pages poll
    every 2 s.
    """
    key = (rollout.pk, rollout.evaluations, rollout.version, rollout.stage, rollout.state)
    if rollout.evaluated_at is None or key not in _KEPT:
        found = RolloutEvidence(guardrail_rows(rollout), shadow_figures(rollout))
        if len(_KEPT) >= _KEPT_AT_MOST:
            _KEPT.clear()
        _KEPT[key] = found
    return _KEPT[key]


def stage_name(stage: Mapping[str, Any]) -> str:
    return share(stage["share_pcm"]) if stage["mode"] == "percentage" else str(stage["mode"])
