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

from django.db.models import Case, F, IntegerField, Q, QuerySet, Value, When
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


@dataclass(frozen=True, slots=True)
class Times:
    """Consecutive periods of a workload without a gap, and the sources of each."""

    environment: Environment
    workload: Workload
    parts: Sequence[Span]
    read: Sequence[Sources]

    @property
    def whole(self) -> Sources:
        return Sources(
            [day for part in self.read for day in part.days],
            [hour for part in self.read for hour in part.hours],
            [span for part in self.read for span in part.spans],
        )


def routes(
    environment: Environment,
    workload: Workload,
    start: datetime,
    end: datetime,
    *,
    rollout: str | None = None,
) -> dict[Route, OutcomeSums]:
    """Return sums by route over the minutes from `start` up to but not including `end`."""
    (found,) = routes_by_part(times(environment, workload, [(start, end)]), rollout=rollout)
    return found


def routes_by_part(read: Times, *, rollout: str | None = None) -> list[dict[Route, OutcomeSums]]:
    """Return sums by route of each period, in as many queries as one period takes."""
    found: list[dict[Route, OutcomeSums]] = [{} for _ in read.parts]
    for rows, aggregates in _rows(read.environment, read.workload, read.whole):
        some = rows if rollout is None else rows.filter(rollout=rollout)
        numbered = some.annotate(part=_part(rows.model, read.parts)).order_by()
        for part, *values in numbered.values_list("part", *Route._fields).annotate(**aggregates):
            route, sums = Route(*values[: len(Route._fields)]), columns.as_sums(values[len(Route._fields) :])
            mine = found[part]
            mine[route] = mine[route] + sums if route in mine else sums
    return found


def _part(model: Any, parts: Sequence[Span]) -> Case | Value:
    """Return the number of the period that a row belongs to. No row crosses the end of a period."""
    if len(parts) == 1:
        return Value(0)
    field = {DayOutcomes: "day", DayLatency: "day", HourOutcomes: "hour", OutcomeBucket: "minute"}[model]
    ends = [last.astimezone(UTC).date() if field == "day" else last for _, last in parts[:-1]]
    return Case(
        *(When(**{f"{field}__lt": end}, then=Value(number)) for number, end in enumerate(ends)),
        default=Value(len(ends)),
        output_field=IntegerField(),
    )


def latencies_by_part(read: Times) -> list[dict[str, Histogram]]:
    """Return latencies in milliseconds by endpoint, of each period."""
    place, whole = {"environment": read.environment, "workload": read.workload}, read.whole
    found: list[dict[str, Histogram]] = [defaultdict(Histogram) for _ in read.parts]
    rows: list[tuple[QuerySet[Any], str]] = []
    if whole.days:
        rows.append((DayLatency.objects.filter(**place, day__in=whole.days), "histogram"))
    if whole.hours:
        rows.append((HourOutcomes.objects.filter(**place, hour__in=whole.hours), "latency_histogram"))
    if whole.spans:
        rows.append((_outcomes(read.environment, read.workload, whole.spans), "latency_histogram"))
    for some, column in rows:
        numbered = some.annotate(part=_part(some.model, read.parts)).order_by()
        for part, endpoint, histogram in numbered.values_list("part", "endpoint", column):
            if histogram:
                merge(found[part][endpoint], histogram)
    return [dict(histograms) for histograms in found]


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


def merged(parts: Iterable[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Combine the histograms of several periods."""
    whole: dict[str, Histogram] = defaultdict(Histogram)
    for part in parts:
        for endpoint, histogram in part.items():
            merge(whole[endpoint], {"zero": histogram.zero, "counts": histogram.counts})
    return dict(whole)


# --- choosing the sources --------------------------------------------------------------------------------


def sources(
    environment: Environment, workload: Workload, start: datetime, end: datetime, *, days: bool = True
) -> Sources:
    """Split a period into whole days, whole hours and the rest. Rollups that changed since are never used."""
    return times(environment, workload, [(start, end)], days=days).whole


def times(environment: Environment, workload: Workload, parts: Sequence[Span], *, days: bool = True) -> Times:
    """Choose the sources of consecutive periods, in three queries for all of them."""
    start, end = parts[0][0], parts[-1][1]
    states = HourState.objects.filter(environment=environment, workload=workload)
    changed = states.exclude(READY).filter(hour__gte=hour_of(start), hour__lt=end)
    dirty = {hour.astimezone(UTC).date() for hour in changed.values_list("hour", flat=True)}
    ready = map(_of_day, _ready_days(environment, workload, start, end, dirty) if days else ())
    taken = [day for day in ready if any(_is_in(day, part) for part in parts)]
    hours = _ready_hours(states, list(_gaps(start, end, taken)))
    return Times(environment, workload, parts, [_sources_in(part, taken, hours) for part in parts])


def _sources_in(part: Span, days: Sequence[Span], hours: Sequence[Span]) -> Sources:
    """Return the whole days and hours inside a period, and the rest of it."""
    mine = [day for day in days if _is_in(day, part)]
    gaps = list(_gaps(*part, mine))
    inside = [[hour for hour in hours if _is_in(hour, gap)] for gap in gaps]
    spans = [span for gap, some in zip(gaps, inside, strict=True) for span in _gaps(*gap, some)]
    return Sources(
        [first.date() for first, _ in mine], [first for some in inside for first, _ in some], spans
    )


def _is_in(span: Span, whole: Span) -> bool:
    return whole[0] <= span[0] and span[1] <= whole[1]


def _of_day(day: date) -> Span:
    return midnight(day), midnight(day) + DAY


def _ready_hours(states: QuerySet[HourState], gaps: Sequence[Span]) -> list[Span]:
    """Return the whole hours of some gaps whose rollups are up to date."""
    if not gaps:
        return []
    inside = Q()
    for first, last in gaps:
        inside |= Q(hour__gte=first, hour__lte=last - HOUR)
    known = states.filter(inside, READY).order_by("hour").values_list("hour", flat=True)
    return [(hour.astimezone(UTC), hour.astimezone(UTC) + HOUR) for hour in known]


def _ready_days(
    environment: Environment, workload: Workload, start: datetime, end: datetime, dirty: set[date]
) -> list[date]:
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    begin = first.date() if first == midnight(first.date()) else first.date() + DAY
    done = DayState.objects.filter(
        environment=environment, workload=workload, day__gte=begin, day__lt=last.date()
    )
    return [day for day in done.order_by("day").values_list("day", flat=True) if day not in dirty]


def _gaps(start: datetime, end: datetime, taken: Iterable[Span]) -> Iterator[Span]:
    """Yield what remains of a period after cutting out the taken spans, which are in order."""
    for first, last in taken:
        if first > start:
            yield start, first
        start = max(start, last)
    if start < end:
        yield start, end


def midnight(day: date) -> datetime:
    """Return the start of a day, in UTC."""
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
