"""The sums of a period by route, read from the coarsest rollups that are ready.

Days that were rolled up and have not changed since come from `DayOutcomes`, hours from `HourOutcomes`, and the rest
(the current hour, hours that just changed, odd minutes at both ends) from the outcomes themselves. So the result is
exact to the minute, however far the job has got.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import F, Q, QuerySet
from django.db.models.functions import TruncHour, TruncMinute

from pointsman.reporting.histogram import Histogram
from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns
from rollout_app.review.models import DayLatency, DayOutcomes, DayState, HourOutcomes, HourState
from rollout_app.review.rollups import DAY, HOUR, READY, hour_of, merge


class Route(NamedTuple):
    """The path of a task: what the review breaks down by."""

    rollout: str  # empty outside a rollout
    stage: int  # -1 outside a rollout
    arm: str
    version: int
    endpoint: str
    rule: str
    model: str


Routes = Mapping[Route, OutcomeSums]
Span = tuple[datetime, datetime]  # from, and up to but not including


@dataclass(frozen=True, slots=True)
class Sources:
    """The rollups that a period is read from. `spans` of minutes are read from the outcomes."""

    days: Sequence[date]
    hours: Sequence[datetime]
    spans: Sequence[Span]


def routes(
    environment: Environment,
    workload: Workload,
    start: datetime,
    end: datetime,
    *,
    rollout: str | None = None,
) -> dict[Route, OutcomeSums]:
    """Return sums by route over the minutes from `start` up to but not including `end`."""
    found: dict[Route, OutcomeSums] = {}
    for rows, aggregates in _rows(environment, workload, sources(environment, workload, start, end)):
        some = rows if rollout is None else rows.filter(rollout=rollout)
        for values in some.order_by().values_list(*Route._fields).annotate(**aggregates):
            route, sums = Route(*values[: len(Route._fields)]), columns.as_sums(values[len(Route._fields) :])
            found[route] = found[route] + sums if route in found else sums
    return found


def latencies(
    environment: Environment, workload: Workload, start: datetime, end: datetime
) -> dict[str, Histogram]:
    """Return latencies in milliseconds by endpoint."""
    place = {"environment": environment, "workload": workload}
    read = sources(environment, workload, start, end)
    merged: dict[str, Histogram] = defaultdict(Histogram)
    rows: list[Iterable[tuple[str, Any]]] = []
    if read.days:
        days = DayLatency.objects.filter(**place, day__in=read.days)
        rows.append(days.values_list("endpoint", "histogram"))
    if read.hours:
        hours = HourOutcomes.objects.filter(**place, hour__in=read.hours)
        rows.append(hours.values_list("endpoint", "latency_histogram"))
    if read.spans:
        rows.append(_outcomes(environment, workload, read.spans).values_list("endpoint", "latency_histogram"))
    for some in rows:
        for endpoint, histogram in some:
            if histogram:
                merge(merged[endpoint], histogram)
    return dict(merged)


def arms_by_time(
    environment: Environment,
    workload: Workload,
    start: datetime,
    end: datetime,
    rollout: str,
    *,
    hourly: bool,
) -> dict[tuple[int, datetime], dict[str, OutcomeSums]]:
    """Return the sums of both arms by (stage, slot); slots are minutes or hours."""
    found: dict[tuple[int, datetime], dict[str, OutcomeSums]] = defaultdict(dict)
    read = (
        sources(environment, workload, start, end, days=False) if hourly else Sources((), (), [(start, end)])
    )
    slots = {"minute": TruncHour("minute") if hourly else TruncMinute("minute"), "hour": F("hour")}
    for rows, aggregates in _rows(environment, workload, read):
        slot = slots["minute" if rows.model is OutcomeBucket else "hour"]
        grouped = (
            rows.filter(rollout=rollout).annotate(slot=slot).order_by().values_list("stage", "slot", "arm")
        )
        for stage, at, arm, *values in grouped.annotate(**aggregates):
            sums = columns.as_sums(values)
            found[stage, at][arm] = found[stage, at].get(arm, OutcomeSums()) + sums
    return found


def grouped(found: Routes, key: Callable[[Route], Hashable]) -> dict[Any, OutcomeSums]:
    """Group the sums by `key(route)`."""
    groups: dict[Any, OutcomeSums] = {}
    for route, sums in found.items():
        name = key(route)
        groups[name] = groups[name] + sums if name in groups else sums
    return groups


def added(parts: Iterable[Routes]) -> dict[Route, OutcomeSums]:
    """Add up the sums of several periods."""
    whole: dict[Route, OutcomeSums] = {}
    for part in parts:
        for route, sums in part.items():
            whole[route] = whole[route] + sums if route in whole else sums
    return whole


# --- choosing the sources --------------------------------------------------------------------------------


def sources(
    environment: Environment, workload: Workload, start: datetime, end: datetime, *, days: bool = True
) -> Sources:
    """Split a period into whole days, whole hours and the rest. Rollups that changed since are never used."""
    states = HourState.objects.filter(environment=environment, workload=workload)
    changed = states.exclude(READY).filter(hour__gte=hour_of(start), hour__lt=end)
    dirty = {hour.astimezone(UTC) for hour in changed.values_list("hour", flat=True)}
    ready = _ready_days(environment, workload, start, end, dirty) if days else []
    gaps = list(_gaps(start, end, [(_midnight(day), _midnight(day) + DAY) for day in ready]))
    hours: list[datetime] = []
    if gaps:
        inside = Q()
        for first, last in gaps:
            inside |= Q(hour__gte=first, hour__lte=last - HOUR)
        known = states.filter(inside, READY).order_by("hour").values_list("hour", flat=True)
        hours = [hour.astimezone(UTC) for hour in known]
    return Sources(ready, hours, _spans(gaps, hours))


def _ready_days(
    environment: Environment, workload: Workload, start: datetime, end: datetime, dirty: set[datetime]
) -> list[date]:
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    begin = first.date() if first == _midnight(first.date()) else first.date() + DAY
    done = DayState.objects.filter(
        environment=environment, workload=workload, day__gte=begin, day__lt=last.date()
    )
    touched = {hour.date() for hour in dirty}
    return [day for day in done.order_by("day").values_list("day", flat=True) if day not in touched]


def _gaps(start: datetime, end: datetime, taken: Iterable[Span]) -> Iterator[Span]:
    """Yield what remains of a period after cutting out the taken spans, which are in order."""
    for first, last in taken:
        if first > start:
            yield start, first
        start = max(start, last)
    if start < end:
        yield start, end


def _spans(gaps: Iterable[Span], hours: Sequence[datetime]) -> list[Span]:
    """Return the gaps without the hours."""
    spans: list[Span] = []
    for first, last in gaps:
        inside = [(hour, hour + HOUR) for hour in hours if first <= hour < last]
        spans += _gaps(first, last, inside)
    return spans


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _rows(
    environment: Environment, workload: Workload, read: Sources
) -> Iterator[tuple[QuerySet[Any], dict[str, Any]]]:
    """Yield the rows of each source with the aggregates that add them up."""
    place = {"environment": environment, "workload": workload}
    if read.days:
        # If no day is missing, use one range instead of a list of days.
        first, last = read.days[0], read.days[-1]
        whole = (last - first).days + 1 == len(read.days)
        days = Q(day__gte=first, day__lte=last) if whole else Q(day__in=read.days)
        yield DayOutcomes.objects.filter(days, **place), columns.from_rows()
    if read.hours:
        yield HourOutcomes.objects.filter(**place, hour__in=read.hours), columns.from_rows()
    if read.spans:
        yield _outcomes(environment, workload, read.spans), columns.from_outcomes()


def _outcomes(environment: Environment, workload: Workload, spans: Sequence[Span]) -> QuerySet[OutcomeBucket]:
    inside = Q()
    for first, last in spans:
        inside |= Q(minute__gte=first, minute__lt=last)
    return OutcomeBucket.objects.filter(inside, environment=environment, workload=workload)


def parts_of(start: datetime, end: datetime, parts: int) -> list[Span]:
    """Split a period into equal parts, cut at full hours if they are longer than a day."""
    length = (end - start) / parts
    cuts = [start + at * length for at in range(parts)] + [end]
    if length > timedelta(days=1):
        cuts = [start, *(hour_of(cut) for cut in cuts[1:-1]), end]
    return list(zip(cuts, cuts[1:], strict=False))
