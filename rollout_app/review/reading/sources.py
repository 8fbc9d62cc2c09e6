"""Which rollups a period is read from.

Days that were rolled up and have not changed since come from `DayOutcomes`, hours from `HourOutcomes`, and the rest
(the current hour, hours that just changed, odd minutes at both ends) from the outcomes themselves. So the result is
exact to the minute, however far the job has got.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from policies_app.models import Environment, Workload
from rollout_app.outcomes.minute_totals import stored_moment
from rollout_app.review.models import DayState, HourState
from rollout_app.review.reading.statements import Statement, as_stored, united
from rollout_app.review.rollups import DAY, HOUR, hour_of

Span = tuple[datetime, datetime]  # from, and up to but not including

_HOURS, _DAYS = HourState._meta.db_table, DayState._meta.db_table
_READY = "(changes = rolled AND final)"  # as `rollups.READY`
_PLACE = "environment_id = %s AND workload_id = %s"


@dataclass(frozen=True, slots=True)
class Sources:
    """The rollups that a period is read from. `spans` of minutes are read from the outcomes."""

    days: Sequence[date]
    hours: Sequence[datetime]
    spans: Sequence[Span]


class Periods(NamedTuple):
    """Periods of a workload to read, in order and without overlap.

    `rollout`: only the outcomes of this one. `days`: whether whole days may be read from the sums by day.
    """

    environment: Environment
    workload: Workload
    parts: Sequence[Span]
    rollout: str | None = None
    days: bool = True

    @property
    def place(self) -> list[Any]:
        return [self.environment.pk, self.workload.pk]


@dataclass(frozen=True, slots=True)
class Times:
    """Periods of a workload, and the sources of each."""

    of: Periods
    read: Sequence[Sources]

    @property
    def whole(self) -> Sources:
        return Sources(
            [day for part in self.read for day in part.days],
            [hour for part in self.read for hour in part.hours],
            [span for part in self.read for span in part.spans],
        )


def sources(environment: Environment, workload: Workload, start: datetime, end: datetime) -> Sources:
    """Split a period into whole days, whole hours and the rest. Rollups that changed since are never used."""
    return times(environment, workload, [(start, end)]).whole


def minutes_of(periods: Periods) -> Times:
    """Read everything from the outcomes themselves."""
    return Times(periods, [Sources((), (), [part]) for part in periods.parts])


def times(environment: Environment, workload: Workload, parts: Sequence[Span]) -> Times:
    """Choose the sources of periods of one workload, in three queries."""
    (found,) = times_of([Periods(environment, workload, parts)])
    return found


def times_of(asked: Sequence[Periods]) -> list[Times]:
    """Choose the sources of periods of several workloads, in three queries for all of them."""
    taken = _ready_days(asked, _changed_days(asked))
    gaps = [
        [gap for part in each.parts for gap in _gaps(*part, [day for day in days if _is_in(day, part)])]
        for each, days in zip(asked, taken, strict=True)
    ]
    ready = _ready_hours(asked, gaps)
    return [
        Times(each, [_sources_in(part, days, hours) for part in each.parts])
        for each, days, hours in zip(asked, taken, ready, strict=True)
    ]


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


def _changed_days(asked: Sequence[Periods]) -> list[set[date]]:
    """Return the days with an hour whose rollup is out of date."""
    changed = [
        Statement(
            f"SELECT {at}, hour FROM {_HOURS} WHERE {_PLACE} AND hour >= %s AND hour < %s AND NOT {_READY}",  # noqa: S608 — our own names; bound values
            [*each.place, as_stored(hour_of(each.parts[0][0])), as_stored(each.parts[-1][1])],
        )
        for at, each in enumerate(asked)
    ]
    found: list[set[date]] = [set() for _ in asked]
    for at, hour in united(changed):
        found[at].add(stored_moment(hour).astimezone(UTC).date())
    return found


def _ready_days(asked: Sequence[Periods], changed: Sequence[set[date]]) -> list[list[Span]]:
    """Return the whole days of the periods that were rolled up and have not changed since."""
    done = []
    for at, each in enumerate(asked):
        first, last = each.parts[0][0].astimezone(UTC), each.parts[-1][1].astimezone(UTC)
        begin = first.date() if first == midnight(first.date()) else first.date() + DAY
        if each.days and begin < last.date():
            text = f"SELECT {at}, day FROM {_DAYS} WHERE {_PLACE} AND day >= %s AND day < %s"  # noqa: S608 — as above
            done.append(Statement(text, [*each.place, as_stored(begin), as_stored(last.date())]))
    found: list[list[Span]] = [[] for _ in asked]
    for at, value in united(done):
        day = date.fromisoformat(value) if isinstance(value, str) else value
        span = midnight(day), midnight(day) + DAY
        if day not in changed[at] and any(_is_in(span, part) for part in asked[at].parts):
            found[at].append(span)
    return [sorted(days) for days in found]


def _ready_hours(asked: Sequence[Periods], gaps: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """Return the whole hours of some gaps whose rollups are up to date."""
    inside = [
        Statement(
            f"SELECT {at}, hour FROM {_HOURS} WHERE {_PLACE} AND hour >= %s AND hour <= %s AND {_READY}",  # noqa: S608 — as above
            [*each.place, as_stored(first), as_stored(last - HOUR)],
        )
        for at, (each, some) in enumerate(zip(asked, gaps, strict=True))
        for first, last in some
        if last - first >= HOUR
    ]
    found: list[list[Span]] = [[] for _ in asked]
    for at, value in united(inside):
        hour = stored_moment(value).astimezone(UTC)
        found[at].append((hour, hour + HOUR))
    return [sorted(hours) for hours in found]


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


def parts_of(start: datetime, end: datetime, parts: int) -> list[Span]:
    """Split a period into equal parts, cut at full hours if they are longer than a day."""
    length = (end - start) / parts
    cuts = [start + at * length for at in range(parts)] + [end]
    if length > timedelta(days=1):
        cuts = [start, *(hour_of(cut) for cut in cuts[1:-1]), end]
    return list(zip(cuts, cuts[1:], strict=False))
