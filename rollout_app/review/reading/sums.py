"""Sums of periods by route and by arm, and latencies, from the chosen sources."""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Model

from controlplane.core.bulk import chunks, flat
from pointsman.reporting.histogram import Histogram
from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns
from rollout_app.review.models import DayLatency, DayOutcomes, HourOutcomes
from rollout_app.review.reading.sources import Periods, Span, Times, times_of
from rollout_app.review.reading.statements import Statement, as_stored, slot, sums_of, united
from rollout_app.review.rollups import DAY, HOUR, merge


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
Slots = Mapping[tuple[int, int], Mapping[str, OutcomeSums]]
_MOST_SPANS = 8  # of minutes that are read one by one
_ALTERNATIVES = 100


def routes(
    environment: Environment,
    workload: Workload,
    start: datetime,
    end: datetime,
    *,
    rollout: str | None = None,
) -> dict[Route, OutcomeSums]:
    """Return sums by route over the minutes from `start` up to but not including `end`."""
    ((found,),) = routes_of(times_of([Periods(environment, workload, [(start, end)], rollout)]))
    return found


def routes_by_part(read: Times) -> list[dict[Route, OutcomeSums]]:
    """Return sums by route of each period, in one query."""
    (found,) = routes_of([read])
    return found


def routes_of(reads: Sequence[Times]) -> list[list[dict[Route, OutcomeSums]]]:
    """Return the same of several workloads or times, in one query for all of them."""
    found: list[list[dict[Route, OutcomeSums]]] = [[{} for _ in read.of.parts] for read in reads]
    keys = ", ".join(Route._fields)
    selects = [
        _summed(rows, f"{at}, {part.text}", part.values, keys)
        for at, read in enumerate(reads)
        for rows in _rows(read)
        for part in [_part(rows.column, read.of.parts)]
    ]
    for at, part, *values in united(selects):
        route, sums = Route(*values[: len(Route._fields)]), columns.as_sums(values[len(Route._fields) :])
        mine = found[at][part]
        mine[route] = mine[route] + sums if route in mine else sums
    return found


def arms_by_time(reads: Sequence[Times], seconds: Sequence[int]) -> list[Slots]:
    """Return the sums of both arms of each rollout by (stage, slot of so many seconds), in one query for all. Only the
    figures by which arms are compared.
    """
    found: list[dict[tuple[int, int], dict[str, OutcomeSums]]] = [defaultdict(dict) for _ in reads]
    selects = [
        _summed(rows, f"{at}, {slot(rows.column, length)}", (), "stage, arm", columns.COMPARED)
        for at, (read, length) in enumerate(zip(reads, seconds, strict=True))
        for rows in _rows(read)
    ]
    for at, number, stage, arm, *values in united(selects):
        arms, sums = found[at][stage, number], columns.as_compared(values)
        arms[arm] = arms[arm] + sums if arm in arms else sums
    return [dict(slots) for slots in found]


class _Rows(NamedTuple):
    """Rows of one source. `column`: of their time."""

    model: type[Model]
    column: str
    where: Statement


def _rows(read: Times, days: type[Model] = DayOutcomes) -> Iterator[_Rows]:
    """Yield the rows of each source."""
    for model, column, where in _chosen(read, days):
        text, values = (
            f"environment_id = %s AND workload_id = %s AND {where.text}",
            [*read.of.place, *where.values],
        )
        if read.of.rollout is not None:
            text, values = f"{text} AND rollout = %s", [*values, read.of.rollout]
        yield _Rows(model, column, Statement(text, values))


def _chosen(read: Times, days: type[Model]) -> Iterator[_Rows]:
    whole = read.whole
    if whole.days:
        yield _Rows(days, "day", _listed("day", whole.days, DAY))
    if whole.hours:
        yield _Rows(HourOutcomes, "hour", _listed("hour", whole.hours, HOUR))
    # One query per span: with several in one condition, SQLite would read every minute of the workload.
    spans = [_between("minute", *span) for span in whole.spans]
    if len(spans) > _MOST_SPANS:
        # A workload with tasks in every other hour. SQLite refuses a condition of more than 1,000 alternatives.
        spans = [_any_of(some) for some in chunks(whole.spans, _ALTERNATIVES)]
    for span in spans:
        yield _Rows(OutcomeBucket, "minute", span)


def _any_of(spans: Sequence[Span]) -> Statement:
    """Return the condition for the minutes of many spans, within bounds that an index serves."""
    each = [_between("minute", spans[0][0], spans[-1][1]), *(_between("minute", *span) for span in spans)]
    alternatives = " OR ".join(one.text for one in each[1:])
    return Statement(f"{each[0].text} AND ({alternatives})", flat(one.values for one in each))


def _listed(column: str, moments: Sequence[Any], step: timedelta) -> Statement:
    """Return the condition for some days or hours: a range if none between them is missing."""
    first, last = moments[0], moments[-1]
    if last - first == (len(moments) - 1) * step:
        return _between(column, first, last + step)
    return Statement(f"{column} IN ({', '.join(['%s'] * len(moments))})", [as_stored(at) for at in moments])


def _between(column: str, first: date | datetime, before: date | datetime) -> Statement:
    return Statement(f"({column} >= %s AND {column} < %s)", [as_stored(first), as_stored(before)])


def _summed(
    rows: _Rows, numbers: str, values: Sequence[Any], keys: str, names: Sequence[str] = columns.COLUMNS
) -> Statement:
    """Return the sums by `numbers`, two expressions of which the second is grouped by, and `keys`."""
    sums, table = sums_of(rows.model, names), rows.model._meta.db_table
    return Statement(
        f"SELECT {numbers}, {keys}, {sums.text} FROM {table} WHERE {rows.where.text} GROUP BY 2, {keys}",  # noqa: S608 — our own names; bound values
        [*values, *sums.values, *rows.where.values],
    )


def _part(column: str, parts: Sequence[Span]) -> Statement:
    """Return the number of the period that a row belongs to. No row crosses the end of a period."""
    ends = [last.astimezone(UTC).date() if column == "day" else last for _, last in parts[:-1]]
    if not ends:
        return Statement("0", ())
    cases = " ".join(f"WHEN {column} < %s THEN {number}" for number in range(len(ends)))
    return Statement(f"CASE {cases} ELSE {len(ends)} END", [as_stored(end) for end in ends])


def latencies_by_part(read: Times) -> list[dict[str, Histogram]]:
    """Return latencies in milliseconds by endpoint, of each period, in one query."""
    found: list[dict[str, Histogram]] = [defaultdict(Histogram) for _ in read.of.parts]
    selects = []
    for rows in _rows(read, days=DayLatency):
        part, table = _part(rows.column, read.of.parts), rows.model._meta.db_table
        histogram = "histogram" if rows.model is DayLatency else "latency_histogram"
        text = f"SELECT {part.text}, endpoint, CAST({histogram} AS text) FROM {table} WHERE {rows.where.text}"  # noqa: S608 — our own names; bound values
        selects.append(Statement(text, [*part.values, *rows.where.values]))
    for number, endpoint, stored in united(selects):
        if histograms := json.loads(stored):
            merge(found[number][endpoint], histograms)
    return [dict(histograms) for histograms in found]


class TimedRow(NamedTuple):
    """One row of a route: an hour, or a minute where the hour is not over. `histogram` is empty without latencies."""

    version: int
    rule: str
    model: str
    tasks: int
    escalations: int
    histogram: Mapping[str, Any]


def timed_rows(
    environment: Environment, workload: Workload, start: datetime, end: datetime
) -> Iterator[TimedRow]:
    """Yield the rows of a period with their latencies in milliseconds. The minutes of the current hour count, too."""
    (read,) = times_of([Periods(environment, workload, [(start, end)], days=False)])
    names = "version, rule, model, tasks, escalations, CAST(latency_histogram AS text)"
    selects = [
        Statement(
            f"SELECT {names} FROM {rows.model._meta.db_table} WHERE {rows.where.text}",  # noqa: S608 — our own names; bound values
            rows.where.values,
        )
        for rows in _rows(read)
    ]
    for *route, histogram in united(selects):
        yield TimedRow._make([*route, json.loads(histogram)])


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
