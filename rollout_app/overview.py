"""What a rollout's page shows, read in few queries: its ladder, its arms, its verdicts. Reads only."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.db.models.functions import TruncDay, TruncHour, TruncMinute
from django.utils import timezone

from controlplane.display import MINUS, NONE, THIN, count, money, percent, share, span
from rollout_app.charts import Chart, Interval, chart, interval
from rollout_app.guardrails import Guardrail
from rollout_app.measures import RATIOS
from rollout_app.models import ArmTotals, Rollout, Transition, Verdict
from rollout_app.states import State
from rollout_app.stats.combine import LOG_ROLL_BACK

_DAY = timedelta(days=1)
ARMS = ("baseline", "candidate")
_SUMS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "cost_sum",
)  # fmt: skip


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


# --- the arms -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Arm:
    """One arm's sums since the rollout began, and the figures made of them."""

    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))

    def add(self, row: Mapping[str, Any]) -> None:
        for name in _SUMS:
            self.sums[name] += row[f"{name}_"]

    def rate(self, name: str, of: str = "tasks") -> float | None:
        return self.sums[name] / self.sums[of] if self.sums[of] else None

    @property
    def success(self) -> float | None:
        """Of the graded tasks: what nobody has judged yet is neither good nor bad."""
        graded = self.sums["successes"] + self.sums["failures"]
        return self.sums["successes"] / graded if graded else None

    @property
    def cost_per_success(self) -> float | None:
        return self.rate("cost_sum", "successes")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the two arms side by side."""

    label: str
    baseline: str
    candidate: str
    difference: str


@dataclass(frozen=True, slots=True)
class Arms:
    lines: list[Comparison]
    success: Chart | None
    cost: Chart | None
    any: bool


def arms(rollout: Rollout) -> Arms:
    """Both arms compared, and over time. One query, grouped as coarsely as the rollout is long."""
    totals = {arm: Arm() for arm in ARMS}
    slots: dict[str, dict[datetime, Arm]] = {arm: {} for arm in ARMS}
    for row in _rows(rollout):
        totals[row["arm"]].add(row)
        slots[row["arm"]].setdefault(row["slot"], Arm()).add(row)
    bar, when, up = float(rollout.workload.quality_bar), _clock(rollout), math.inf
    success = _series(slots, lambda arm: arm.success)
    cost = _series(slots, lambda arm: arm.cost_per_success)
    return Arms(
        lines=_compared(**totals),
        success=chart(success, written=percent, short=_short_percent, when=when, bound=bar, limits=(0, 1)),
        cost=chart(cost, written=money, short=_short_money, when=when, limits=(0, up)),
        any=any(total.sums["tasks"] for total in totals.values()),
    )


def _rows(rollout: Rollout) -> Iterable[Mapping[str, Any]]:
    length = _length(rollout)
    slot = TruncMinute if length < timedelta(hours=3) else TruncHour if length < 14 * _DAY else TruncDay
    grouped = ArmTotals.objects.filter(rollout=str(rollout.pk)).annotate(slot=slot("minute"))
    return grouped.values("arm", "slot").annotate(**{f"{n}_": Sum(n) for n in _SUMS}).order_by("slot")


def _length(rollout: Rollout) -> timedelta:
    return (rollout.ended_at or timezone.now()) - (rollout.started_at or rollout.created_at)


def _series(
    slots: Mapping[str, Mapping[datetime, Arm]], figure: Callable[[Arm], float | None]
) -> dict[str, list[tuple[float, float]]]:
    """A figure per arm over time, without the slots that have none."""
    return {
        arm: [(at.timestamp(), value) for at, sums in line.items() if (value := figure(sums)) is not None]
        for arm, line in slots.items()
    }


def _clock(rollout: Rollout) -> Callable[[float], str]:
    form = "%d %b %H:%M" if _length(rollout) > _DAY else "%H:%M"
    return lambda x: datetime.fromtimestamp(x, UTC).strftime(form)


def _short_percent(fraction: float) -> str:
    return f"{fraction * 100:g}{THIN}%"


def _short_money(nusd: float) -> str:
    return f"${nusd / 1e9:.9f}".rstrip("0").rstrip(".")


def _compared(baseline: Arm, candidate: Arm) -> list[Comparison]:
    lines = [
        Comparison("Tasks", count(baseline.sums["tasks"]), count(candidate.sums["tasks"]), ""),
        _points("Success", baseline.success, candidate.success),
        _relative("Cost per success", baseline.cost_per_success, candidate.cost_per_success),
        _relative("Cost per task", baseline.rate("cost_sum"), candidate.rate("cost_sum")),
    ]
    rates = {"Escalation": "escalations", "Fallback": "fallbacks", "Retry": "retries", "Error": "errors"}
    lines += [_points(label, baseline.rate(name), candidate.rate(name)) for label, name in rates.items()]
    if baseline.sums["ungraded"] or candidate.sums["ungraded"]:
        lines.append(_points("Ungraded", baseline.rate("ungraded"), candidate.rate("ungraded")))
    return lines


def _points(label: str, was: float | None, now: float | None) -> Comparison:
    both = was is not None and now is not None
    return Comparison(label, percent(was), percent(now), points(now - was) if both else NONE)  # type: ignore[operator]


def _relative(label: str, was: float | None, now: float | None) -> Comparison:
    change = signed(percent(abs(now / was - 1)), now / was - 1) if was and now is not None else NONE
    return Comparison(label, money(was), money(now), change)


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
    picture: Interval | None
    tone: str
    harm: int
    safe: int
    gates: bool
    needed: int | None


def verdicts(rollout: Rollout) -> list[VerdictLine]:
    """The guardrails at the last look, in the order of their weight; before the first, what it will be."""
    last = rollout.verdicts.order_by("-look").values("look")[:1]
    rows = list(rollout.verdicts.filter(look=last)) if rollout.started_at else []
    if not rows:
        return [_unjudged(Guardrail.from_dict(data)) for data in rollout.guardrails]
    return [_verdict_line(row) for row in sorted(rows, key=lambda row: (-row.data["weight"], row.guardrail))]


def _unjudged(guardrail: Guardrail) -> VerdictLine:
    write = writer(guardrail.metric, absolute=guardrail.bound is not None)
    limit = guardrail.margin if guardrail.bound is None else guardrail.bound
    label = LABELS[guardrail.metric]
    margin = write(limit).lstrip("+")
    return VerdictLine(label, "no_data", NONE, "", margin, None, "quiet", 0, 0, guardrail.gates, None)


def _verdict_line(row: Verdict) -> VerdictLine:
    data = row.data
    absolute = data["name"].endswith("_bound")
    write = writer(data["metric"], absolute=absolute)
    estimate, low, high, limit = (data[key] for key in ("estimate", "low", "high", "margin"))
    zero = None if absolute else 0.0
    known = None not in (estimate, low, high)
    tone = {"pass": "good", "fail": "bad", "inconclusive": "warn"}.get(row.verdict, "quiet")
    return VerdictLine(
        label=LABELS[data["metric"]] + (" (absolute)" if absolute else ""),
        verdict=row.verdict,
        estimate=NONE if estimate is None else write(estimate),
        between=f"{write(low)} to {write(high)}".replace(f"{THIN}points to", " to") if known else "",
        margin=write(limit).lstrip("+"),
        picture=interval(estimate, low, high, zero=zero, margin=limit) if known else None,
        tone=tone,
        harm=_hundredths(data["log_e_harm"] + math.log(data["weight"]) if data["counted"] else 0.0),
        safe=_hundredths(data["log_e_safe"]),
        gates=data["gates"],
        needed=data["needed_tasks"],
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


def points(difference: float) -> str:
    """-0.021 → −2.1 points"""
    return signed(f"{abs(difference) * 100:.1f}{THIN}points", round(difference, 3))


def signed(text: str, value: float) -> str:
    return f"{'+' if value > 0 else MINUS if value < 0 else ''}{text}"
