"""What a rollout's page shows, read in few queries: its ladder, its arms, its verdicts. Reads only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.db.models.functions import TruncDay, TruncHour, TruncMinute
from django.utils import timezone

from controlplane.display import MINUS, NONE, THIN, count, money, percent, share, span
from rollout_app.charts import Chart, Interval, chart, interval
from rollout_app.models import ArmTotals, Rollout, Verdict
from rollout_app.states import ENDED, State

ARMS = ("baseline", "candidate")
_SUMS = ("tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "cost_sum")


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
    name = share(stage["share_pcm"]) if stage["mode"] == "percentage" else stage["mode"]
    return Step(name, ", ".join(needs), _step_css(rollout, at))


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
    success = {arm: [(at.timestamp(), a.success) for at, a in slots[arm].items()] for arm in ARMS}
    cost = {arm: [(at.timestamp(), a.cost_per_success) for at, a in slots[arm].items()] for arm in ARMS}
    bar = float(rollout.workload.quality_bar)
    return Arms(
        lines=_compared(**totals),
        success=chart(_known(success), written=percent, when=_clock(rollout), bound=bar, limits=(0, 1)),
        cost=chart(_known(cost), written=money, when=_clock(rollout), limits=(0, float("inf"))),
        any=any(total.sums["tasks"] for total in totals.values()),
    )


def _rows(rollout: Rollout) -> Iterable[dict[str, Any]]:
    length = (rollout.ended_at or timezone.now()) - (rollout.started_at or rollout.created_at)
    slot = TruncMinute if length < timedelta(hours=3) else TruncHour if length < timedelta(days=14) else TruncDay
    grouped = ArmTotals.objects.filter(rollout=str(rollout.pk)).annotate(slot=slot("minute"))
    return grouped.values("arm", "slot").annotate(**{f"{n}_": Sum(n) for n in _SUMS}).order_by("slot")


def _known(series: Mapping[str, list[tuple[float, float | None]]]) -> dict[str, list[tuple[float, float]]]:
    return {arm: [(x, y) for x, y in line if y is not None] for arm, line in series.items()}


def _clock(rollout: Rollout) -> Any:
    long = (rollout.ended_at or timezone.now()) - (rollout.started_at or rollout.created_at) > timedelta(days=1)
    form = "%d %b %H:%M" if long else "%H:%M"
    return lambda x: datetime.fromtimestamp(x, UTC).strftime(form)


def _compared(baseline: Arm, candidate: Arm) -> list[Comparison]:
    lines = [
        Comparison("Tasks", *(count(arm.sums["tasks"]) for arm in (baseline, candidate)), ""),
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


def points(difference: float) -> str:
    """-0.021 → −2.1 points"""
    return signed(f"{abs(difference) * 100:.1f}{THIN}points", round(difference, 3))


def signed(text: str, value: float) -> str:
    return f"{'+' if value > 0 else MINUS if value < 0 else ''}{text}"
