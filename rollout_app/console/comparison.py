"""Both arms of a rollout side by side, in total and over time. Reads only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db.models import Func, IntegerField, Q, QuerySet, Sum
from django.utils import timezone

from controlplane.web.display import NONE, count, money, percent, points, signed
from rollout_app.console.charts import LineChart
from rollout_app.console.kept_sums import STAMPED_BEFORE, kept_slots
from rollout_app.models import ArmTotals, Rollout
from rollout_app.review import reading
from rollout_app.review.columns import graded
from rollout_app.review.models import DayOutcomes

_DAY, _LONG = timedelta(days=1), timedelta(hours=3)
_DAY_S = 86_400
_POINTS = 36  # per line
_TASKS = 50  # minimum per point
ARMS = ("baseline", "candidate")
_SUMS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "cost_n", "cost_sum",
    "graded_sum", "graded_successes",
)  # fmt: skip
_GRADED = ("graded_sum", "graded_successes")  # derived for rows from before they were stored


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm's sums since the rollout began, and the figures derived from them."""

    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "ArmFigures":
        return cls({name: int(row[f"{name}_"] or 0) for name in _SUMS})

    def __add__(self, other: "ArmFigures") -> "ArmFigures":
        return ArmFigures({name: self.sums[name] + other.sums[name] for name in _SUMS})

    def rate(self, name: str, of: str = "tasks") -> float | None:
        return self.sums[name] / self.sums[of] if self.sums[of] else None

    @property
    def success(self) -> float | None:
        """Share of successes among graded tasks: an ungraded task is neither good nor bad."""
        graded = self.sums["successes"] + self.sums["failures"]
        return self.sums["successes"] / graded if graded else None

    @property
    def cost_per_success(self) -> float | None:
        """Over the tasks whose cost and grade are both known, as in the engine and the review."""
        return self.rate("graded_sum", "graded_successes")

    @property
    def cost_per_task(self) -> float | None:
        """Over the tasks whose cost is known."""
        return self.rate("cost_sum", "cost_n")

    @property
    def unpriced(self) -> float | None:
        """Share of tasks whose cost is not known."""
        known = self.rate("cost_n")
        return None if known is None else max(0.0, 1 - known)


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One row of the table of both arms."""

    label: str
    baseline: str
    candidate: str
    difference: str


@dataclass(frozen=True, slots=True)
class ArmComparison:
    lines: list[ComparisonRow]
    charts: list[LineChart]
    any: bool
    without_shadow: bool = False  # the shadow stage is not compared


def compare_arms(rollout: Rollout) -> ArmComparison:
    """Compare both arms in total and over time. The longer the rollout, the coarser the slots."""
    found = _slots(rollout)
    slots = {arm: {at: sums[arm] for at, sums in found.items() if arm in sums} for arm in ARMS}
    sums = {arm: sum(line.values(), ArmFigures()) for arm, line in slots.items()}
    bar = float(rollout.workload.quality_bar)
    success = _series(slots, lambda arm: arm.success)
    cost = _series(slots, lambda arm: arm.cost_per_success)
    return ArmComparison(
        lines=_compared(**sums),
        charts=[
            LineChart("success", "Success", "share", success, bar, f"quality bar {percent(bar)}"),
            LineChart("cost", "Cost per success", "nusd", cost),
        ],
        any=any(arm.sums["tasks"] for arm in sums.values()),
        without_shadow=bool(_rehearsed(rollout)),
    )


class _Slot(Func):
    """The number of the interval of `seconds` that contains a time.

    Django's Trunc calls Python for every row on SQLite, which would take seconds for a long rollout.
    """

    output_field = IntegerField()
    template = "CAST(FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / %(seconds)s) AS BIGINT)"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) / %(seconds)s"
        return self.as_sql(compiler, connection, template=template, **context)


def _slots(rollout: Rollout) -> dict[int, dict[str, ArmFigures]]:
    """Return each arm's sums by the slot's first Unix second. Slots of a long rollout are cached until one changes."""
    length = _length(rollout)
    if length < _LONG:
        return _sums(rollout, 60)
    seconds = 3_600 if length < 14 * _DAY else _DAY_S
    name = f"arms without {sorted(_rehearsed(rollout))}"
    return kept_slots(rollout, name, seconds, lambda since: _sums(rollout, seconds, since))


def _rehearsed(rollout: Rollout) -> set[int]:
    """Return the shadow stages that are over. Only the baseline served in them, at other times than both arms since."""
    return {at for at, stage in enumerate(rollout.stages[: rollout.stage]) if stage["mode"] == "shadow"}


def _sums(rollout: Rollout, seconds: int, since: datetime | None = None) -> dict[int, dict[str, ArmFigures]]:
    """Sum the minutes from `since` on. By day, days that were rolled up have their sums already."""
    rows = ArmTotals.of_rollout(rollout).exclude(stage__in=_rehearsed(rollout))
    rows = rows.filter(minute__gte=since) if since else rows
    if seconds != _DAY_S:
        return _of_minutes(rows, seconds)
    days = _rolled_days(rollout, since)
    return _of_days(rollout, days) | _of_minutes(rows.filter(_outside(days)), seconds)


def _rolled_days(rollout: Rollout, since: datetime | None) -> list[date]:
    """Return the whole days whose stored sums are up to date."""
    start = since or (rollout.started_at or rollout.created_at) - STAMPED_BEFORE
    return list(reading.sources(rollout.environment, rollout.workload, start, timezone.now()).days)


def _of_days(rollout: Rollout, days: Sequence[date]) -> dict[int, dict[str, ArmFigures]]:
    place = {"environment": rollout.environment, "workload": rollout.workload, "rollout": str(rollout.pk)}
    compared = DayOutcomes.objects.filter(**place, day__in=days).exclude(stage__in=_rehearsed(rollout))
    rows = compared.order_by().values("arm", "day")
    found: dict[int, dict[str, ArmFigures]] = {}
    for row in rows.annotate(**{f"{n}_": Sum(n) for n in _SUMS if n != "ungraded"}):
        sums: dict[str, Any] = dict(row)
        sums["ungraded_"] = max(0, sums["tasks_"] - sums["successes_"] - sums["failures_"])
        found.setdefault(int(reading.midnight(sums["day"]).timestamp()), {})[sums["arm"]] = ArmFigures.of_row(
            sums
        )
    return found


def _outside(days: Sequence[date]) -> Q:
    """Return a condition for the minutes of other days. Most rolled-up days are consecutive, so it is short."""
    if not days:
        return Q()
    outside = Q(minute__lt=reading.midnight(days[0])) | Q(minute__gte=reading.midnight(days[-1]) + _DAY)
    for before, after in pairwise(days):
        if after - before > _DAY:
            outside |= Q(minute__gte=reading.midnight(before) + _DAY, minute__lt=reading.midnight(after))
    return outside


def _of_minutes(rows: QuerySet[ArmTotals], seconds: int) -> dict[int, dict[str, ArmFigures]]:
    """Return each arm's sums by slot, in one query."""
    grouped = rows.annotate(slot=_Slot("minute", seconds=seconds)).values("arm", "slot").order_by("slot")
    found: dict[int, dict[str, ArmFigures]] = {}
    sums = {f"{name}_": Sum(name) for name in _SUMS} | {f"{name}_": graded(name) for name in _GRADED}
    for row in grouped.annotate(**sums):
        found.setdefault(row["slot"] * seconds, {})[row["arm"]] = ArmFigures.of_row(row)
    return found


def _length(rollout: Rollout) -> timedelta:
    return (rollout.ended_at or timezone.now()) - (rollout.started_at or rollout.created_at)


def _series(
    slots: Mapping[str, Mapping[int, ArmFigures]], figure: Callable[[ArmFigures], float | None]
) -> dict[str, list[tuple[float, float]]]:
    """Return one figure per arm over time, without slots that lack it."""
    return {
        arm: [(at, value) for at, sums in _merged(line) if (value := figure(sums)) is not None]
        for arm, line in slots.items()
    }


def _merged(line: Mapping[int, ArmFigures]) -> list[tuple[float, ArmFigures]]:
    """Merge slots to about `_POINTS` points of at least `_TASKS` tasks each; fewer tasks would only show noise."""
    enough = max(_TASKS, sum(sums.sums["tasks"] for sums in line.values()) / _POINTS)
    points: list[tuple[float, ArmFigures]] = []
    for at, sums in line.items():
        if points and points[-1][1].sums["tasks"] < enough:
            sums += points.pop()[1]
        points.append((float(at), sums))
    if len(points) > 1 and points[-1][1].sums["tasks"] < enough:
        at_last, rest = points.pop()
        points[-1] = (at_last, points[-1][1] + rest)
    return points


def _compared(baseline: ArmFigures, candidate: ArmFigures) -> list[ComparisonRow]:
    lines = [
        ComparisonRow("Tasks", count(baseline.sums["tasks"]), count(candidate.sums["tasks"]), ""),
        _points("Success", baseline.success, candidate.success),
        _relative("Cost per success", baseline.cost_per_success, candidate.cost_per_success),
        _relative("Cost per task", baseline.cost_per_task, candidate.cost_per_task),
    ]
    rates = {"Escalation": "escalations", "Fallback": "fallbacks", "Retry": "retries", "Error": "errors"}
    lines += [_points(label, baseline.rate(name), candidate.rate(name)) for label, name in rates.items()]
    if baseline.sums["ungraded"] > 0 or candidate.sums["ungraded"] > 0:
        lines.append(_points("Ungraded", baseline.rate("ungraded"), candidate.rate("ungraded")))
    if baseline.unpriced or candidate.unpriced:
        lines.append(_points("Unpriced", baseline.unpriced, candidate.unpriced))
    return lines


def _points(label: str, was: float | None, now: float | None) -> ComparisonRow:
    both = was is not None and now is not None
    return ComparisonRow(label, percent(was), percent(now), points(now - was) if both else NONE)  # type: ignore[operator]


def _relative(label: str, was: float | None, now: float | None) -> ComparisonRow:
    change = signed(percent(abs(now / was - 1)), now / was - 1) if was and now is not None else NONE
    return ComparisonRow(label, money(was), money(now), change)
