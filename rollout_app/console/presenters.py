"""What a rollout's page shows, in few queries: its ladder, shadow, verdicts and history. Reads only."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.web.display import NONE, THIN, count, money, percent, points, share, signed, span
from rollout_app.console.charts import Interval, interval
from rollout_app.engine.evidence import SHARE_ALL, Stage
from rollout_app.engine.guardrails import Guardrail, Verdict
from rollout_app.engine.metrics import RATIOS
from rollout_app.engine.shadow import shadow_report
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import LOG_ROLL_BACK
from rollout_app.evaluation import evaluations
from rollout_app.models import Rollout, Transition
from rollout_app.outcomes import minute_totals

# --- the ladder ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One stage as the page draws it: `css` says whether it is past, now or ahead, and how it fares."""

    name: str
    detail: str
    css: str


def ladder(rollout: Rollout) -> list[Step]:
    return [_step(rollout, at, stage) for at, stage in enumerate(rollout.stages)]


def _step(rollout: Rollout, at: int, stage: Mapping[str, Any]) -> Step:
    needs = []
    if stage.get("min_minutes"):
        needs.append(f"at least {span(stage['min_minutes'] * 60)}")
    if stage.get("min_tasks"):
        needs.append(f"{count(stage['min_tasks'])} {'decisions' if stage['mode'] == 'shadow' else 'tasks'}")
    if stage.get("approval"):
        needs.append("an approval")
    return Step(stage_name(stage), ", ".join(needs), _step_css(rollout, at))


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
    """What the candidate gets now, in words."""
    if rollout.state not in (State.RUNNING, State.PAUSED):
        return "everything" if rollout.state == State.COMPLETED else "nothing"
    stage = rollout.stages[rollout.stage]
    if stage["mode"] == "percentage":
        return f"{share(stage['share_pcm'])} of tasks"
    return "no traffic: its decisions are only compared" if stage["mode"] == "shadow" else "everything"


_DULL = 2.0  # from so many times the tasks on, the page says what a stage can see


def sight(rollout: Rollout) -> str:
    """What the present stage can see, where that is less than one may think."""
    if rollout.state not in (State.RUNNING, State.PAUSED):
        return ""
    stage = Stage.from_dict(rollout.stages[rollout.stage])
    if stage.mode == "full":
        return "All tasks are on the candidate: nothing is compared any more, and no harm takes it back by itself."
    part = stage.share_pcm / SHARE_ALL
    if stage.mode == "shadow" or part < 0.5 or (times := 0.25 / (part * (1 - part))) < _DULL:
        return ""
    return (
        f"Only {percent(1 - part, 0)} of the tasks are left on the baseline to compare with: harm that sets in "
        f"now takes about {times:.0f} times as many tasks to show as at 50{THIN}%."
    )


# --- the shadow ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shadow:
    """What was decided and not enforced: figures with their words, and how the route mix would shift."""

    facts: list[tuple[str, str]]
    shifts: list[tuple[str, str]]  # model, change of its share


def shadow(rollout: Rollout) -> Shadow | None:
    """None when the rollout has no shadow stage, or nothing was reported of it yet."""
    report = shadow_report(*minute_totals.shadow_and_mirror(rollout))
    if not report.decisions:
        return None
    costs = f"{money(report.baseline_cost)} → {money(report.candidate_cost)}"
    facts = [
        ("Decisions compared", count(report.decisions)),
        ("Both chose the same", percent(report.agreement)),
        ("Would move to another model", percent(report.route_shift)),
        ("Projected cost per task", costs),
        ("Evaluation errors", percent(report.error_rate, 2)),
    ]
    if report.cost_change is not None:
        facts.insert(4, ("Change of cost", signed(percent(abs(report.cost_change)), report.cost_change)))
    if report.mirror_difference is not None:
        facts.append(
            (f"Success on {count(report.mirror_n)} mirrored tasks", points(report.mirror_difference))
        )
    return Shadow(facts, [(model, points(change)) for model, change in report.shifts.items()])


# --- the verdicts -------------------------------------------------------------------------------------

LABELS = {
    "failure": "Failure",
    "cost_per_success": "Cost per success",
    "error": "Error",
    "escalation": "Escalation",
    "fallback": "Fallback",
    "retry": "Retry",
    "latency_tail": "Latency tail",
    "cost_tail": "Cost tail",
    "quality": "Mean quality",
}


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """One guardrail at the last look. `harm` and `safe` are in hundredths of what decides (ln E of ln 20)."""

    label: str
    verdict: str
    estimate: str
    between: str
    margin: str
    asked: str  # what an advance asks for now, where it is not the margin: a small slice may bear more
    picture: Interval | None
    tone: str
    harm: int
    safe: int
    gates: bool
    needed: int | None


def verdicts(rollout: Rollout) -> list[VerdictLine]:
    """The guardrails at the last look, in the order of their weight; before the first, what it will be."""
    if not rollout.evidence:
        return [_unjudged(Guardrail.from_dict(data)) for data in rollout.guardrails]
    judged = evaluations.judged(rollout).verdicts
    return [
        _verdict_line(verdict, _next(rollout))
        for verdict in sorted(judged, key=lambda v: (-v.weight, v.name))
    ]


def _next(rollout: Rollout) -> str | None:
    """The stage that the verdicts are about, by its name; None when no advance comes of them any more."""
    stages, following = rollout.stages, rollout.stage + 1
    if rollout.state not in (State.RUNNING, State.PAUSED) or following >= len(stages):
        return None
    return stage_name(stages[following])


def _unjudged(guardrail: Guardrail) -> VerdictLine:
    write = writer(guardrail.metric, absolute=guardrail.bound is not None)
    limit = guardrail.margin if guardrail.bound is None else guardrail.bound
    label = LABELS[guardrail.metric]
    margin = write(limit).lstrip("+")
    return VerdictLine(label, "no_data", NONE, "", margin, "", None, "quiet", 0, 0, guardrail.gates, None)


def _verdict_line(verdict: Verdict, following: str | None) -> VerdictLine:
    absolute = verdict.name != verdict.metric
    write = writer(verdict.metric, absolute=absolute)
    estimate, low, high, limit = verdict.estimate, verdict.low, verdict.high, verdict.margin
    between, picture = "", None
    if estimate is not None and low is not None and high is not None:
        between = f"{write(low)} to {write(high)}".replace(f"{THIN}points to", " to")
        picture = interval(estimate, low, high, zero=None if absolute else 0.0, margin=limit)
    asked = write(verdict.stage_margin)
    counts = verdict.log_e_counted + math.log(verdict.weight) if verdict.counted else None
    return VerdictLine(
        label=LABELS[verdict.metric] + (" (absolute)" if absolute else ""),
        verdict=verdict.result,
        estimate=NONE if estimate is None else write(estimate),
        between=between,
        margin=write(limit).lstrip("+"),
        asked=f"{asked.lstrip('+')} for {following}"
        if following and verdict.gates and asked != write(limit)
        else "",
        picture=picture,
        tone={"pass": "good", "fail": "bad", "inconclusive": "warn"}.get(verdict.result, "quiet"),
        harm=_hundredths(counts),
        safe=_hundredths(verdict.log_e_safe),
        gates=verdict.gates,
        needed=verdict.needed_tasks if following else None,
    )


def _hundredths(log_e: float | None) -> int:
    """How much of the evidence that decides (E = 20) is there: 0 … 100."""
    return round(min(max((log_e or 0.0) / LOG_ROLL_BACK, 0.0), 1.0) * 100)


def writer(metric: str, *, absolute: bool) -> Callable[[float], str]:
    """How a guardrail's figures are written: differences with a sign, absolute ones without."""
    if absolute:
        return money if metric == "cost_per_success" else percent
    if metric in RATIOS:
        return lambda x: signed(percent(abs(x)), round(x, 4))
    return points


# --- history, readback --------------------------------------------------------------------------------

_EVENT_TONES = {
    "start": "live", "break_glass": "bad", "advance": "live", "complete": "good", "approve": "good",
    "reject": "bad", "roll_back": "bad", "abort": "bad", "confirm_rollback": "bad", "confirm_abort": "bad",
    "pause": "warn", "revert": "bad",
}  # fmt: skip
_EVENT_WORDS = {
    "propose": "Proposed", "amend": "Amended", "approve": "Approved", "reject": "Rejected",
    "cancel": "Cancelled", "start": "Started", "break_glass": "Started without approval",
    "pause": "Paused", "resume": "Resumed", "roll_back": "Rolling back", "abort": "Rolling back",
    "confirm_rollback": "Rolled back", "confirm_abort": "Aborted", "complete": "Completed",
    "revert": "Reverted at once",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """One transition in words."""

    transition: Transition
    words: str
    tone: str


def history(rollout: Rollout) -> list[Moment]:
    """What happened to the rollout, newest first."""
    return [_moment(rollout, transition) for transition in rollout.transitions.order_by("-sequence")]


def _moment(rollout: Rollout, transition: Transition) -> Moment:
    event = transition.event
    words = _EVENT_WORDS.get(event, event.replace("_", " ").capitalize())
    if event == "advance" and transition.after_stage < len(rollout.stages):
        words = f"Advanced to {stage_name(rollout.stages[transition.after_stage])}"
    return Moment(transition, words, _EVENT_TONES.get(event, "quiet"))


def stage_name(stage: Mapping[str, Any]) -> str:
    return share(stage["share_pcm"]) if stage["mode"] == "percentage" else str(stage["mode"])
