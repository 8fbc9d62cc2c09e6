"""The sums of a time by route, from the outcomes.

Cost per success needs tasks whose cost and grade are both known. A bucket says how many tasks have a cost and
how many a grade, not how many have both, so only buckets in which that follows count for it.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Case, F, Q, QuerySet, Sum, Value, When
from django.db.models.functions import TruncHour, TruncMinute

from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.models import OutcomeBucket


class Route(NamedTuple):
    """Where tasks went: what the review breaks down by."""

    rollout: str  # empty outside a rollout
    stage: int  # -1 outside a rollout
    arm: str
    version: int
    endpoint: str
    rule: str
    model: str


Routes = Mapping[Route, OutcomeSums]

_ALL_GRADED = Q(ungraded=0)
_BOTH_KNOWN = _ALL_GRADED & (Q(cost_n=F("tasks")) | Q(failures=0) | Q(successes=0))


_SUMS = {
    **{
        name: Sum(name)
        for name in (
            "tasks", "successes", "failures", "escalations", "fallbacks", "retries", "errors", "attempts", "cost_n",
            "quality_n", "confidence_n",
        )
    },
    "cost": Sum("cost_sum"),
    "cost_sq": Sum("cost_sum_sq"),
    "quality": Sum("quality_sum"),
    "confidence": Sum("confidence_sum"),
    "both_n": Sum("cost_n", filter=_BOTH_KNOWN),
    # Where all tasks have a cost, its successes are the bucket's; where none failed, each task with a cost is one.
    "both_successes": Sum(
        Case(
            When(_ALL_GRADED & Q(cost_n=F("tasks")), then=F("successes")),
            When(_ALL_GRADED & Q(failures=0), then=F("cost_n")),
            default=Value(0),
        )
    ),
    "both_cost": Sum("cost_sum", filter=_BOTH_KNOWN),
    "both_cost_sq": Sum("cost_sum_sq", filter=_BOTH_KNOWN),
    "both_cost_on_success": Sum("cost_on_success", filter=_BOTH_KNOWN),
}  # fmt: skip


def routes(
    environment: Environment,
    workload: Workload,
    start: datetime,
    end: datetime,
    *,
    rollout: str | None = None,
) -> dict[Route, OutcomeSums]:
    """Sums by route of the minutes from `start` up to, but not including, `end`."""
    rows = _outcomes(environment, workload, start, end, rollout).values_list(*Route._fields)
    return {
        Route(*row[: len(Route._fields)]): _sums(row[len(Route._fields) :])
        for row in rows.annotate(**_aliased()).order_by()
    }


def routes_in_parts(
    environment: Environment, workload: Workload, start: datetime, end: datetime, parts: int
) -> list[dict[Route, OutcomeSums]]:
    """The same, for each of so many equal parts of the time, oldest first."""
    length = (end - start) / parts
    return [
        routes(environment, workload, start + at * length, start + (at + 1) * length) for at in range(parts)
    ]


def arms_by_time(
    environment: Environment,
    workload: Workload,
    start: datetime,
    end: datetime,
    rollout: str,
    *,
    hourly: bool,
) -> dict[tuple[int, datetime], dict[str, OutcomeSums]]:
    """(stage, slot): both arms' sums; slots are minutes or hours."""
    slot = TruncHour("minute") if hourly else TruncMinute("minute")
    rows = _outcomes(environment, workload, start, end, rollout).annotate(slot=slot)
    found: dict[tuple[int, datetime], dict[str, OutcomeSums]] = defaultdict(dict)
    for stage, at, arm, *sums in rows.values_list("stage", "slot", "arm").annotate(**_aliased()).order_by():
        found[stage, at][arm] = _sums(sums)
    return found


def grouped(found: Routes, key: Callable[[Route], Hashable]) -> dict[Any, OutcomeSums]:
    """The sums by whatever `key` makes of a route."""
    groups: dict[Any, OutcomeSums] = {}
    for route, sums in found.items():
        name = key(route)
        groups[name] = groups[name] + sums if name in groups else sums
    return groups


def _outcomes(
    environment: Environment, workload: Workload, start: datetime, end: datetime, rollout: str | None
) -> QuerySet[OutcomeBucket]:
    rows = OutcomeBucket.objects.filter(
        environment=environment, workload=workload, minute__gte=start, minute__lt=end
    )
    return rows if rollout is None else rows.filter(rollout=rollout)


def _aliased() -> dict[str, Sum]:
    return {f"{name}_": total for name, total in _SUMS.items()}


def _sums(values: Iterable[Any]) -> OutcomeSums:
    return OutcomeSums(**{name: value or 0 for name, value in zip(_SUMS, values, strict=True)})
