"""Read the minutes of the arms into the types that the engine judges. Reads only.

Money is in nano-USD; minutes are Unix minutes as the routers stamped them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import F, Q, Sum
from django.db.models.functions import Greatest

from controlplane.core.bulk import chunks, stored, table_of
from policies_app.models import Workload
from rollout_app.engine.evidence import (
    ArmSums,
    Differing,
    Group,
    MinuteRow,
    MirrorSums,
    Rehearsed,
    ShadowSums,
    SliceSums,
    Stage,
    Telemetry,
)
from rollout_app.engine.reference import Reference
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import stored_sums

_COLUMNS = (*stored_sums.FIGURES, *stored_sums.DIFFERING, "groups", "cells", "endpoints", "shadow", "mirror")
_HEALTH = ("tasks", "successes", "failures", "errors", "escalations", "fallbacks", "retries")
NO_LIMIT = 60 * 24 * 365 * 200  # a Unix minute later than any outcome (in 2170)
_DAY_S = 86_400
_ROWS = 1_000  # rows per statement; SQLite allows 32,766 parameters
_STAGES = 100  # per statement; SQLite unites at most 500 queries
_TABLE = ArmTotals._meta.db_table


class MinuteRange(NamedTuple):
    """The minutes of one stage of a rollout to read, from `first` up to but not including `before`."""

    rollout: str
    stage: int
    first: int
    before: int


@dataclass(frozen=True, slots=True)
class MinuteQuery:
    """How to read a rollout's minutes: tails by its reference's edges, hash groups if units are sticky."""

    reference: Reference
    sticky: bool
    ranges: tuple[MinuteRange, ...]


def minute_rows(queries: Sequence[MinuteQuery]) -> dict[str, list[MinuteRow]]:
    """Return, by rollout, the minutes of its ranges in order, with both arms in one row."""
    by_name = {query.ranges[0].rollout: query for query in queries}
    minutes: dict[str, dict[tuple[int, int], _MinuteInProgress]] = {name: {} for name in by_name}
    names = ("arm", "minute", *_COLUMNS)
    ranges = [window for query in queries for window in query.ranges]
    for rollout, stage, *values in _select_ranges(ranges, ", ".join(f"t.{name}" for name in names)):
        row = dict(zip(names, values, strict=True))
        key = (stage, minute_of(stored_moment(row["minute"])))
        minutes[rollout].setdefault(key, _MinuteInProgress()).add(row, by_name[rollout])
    return {
        name: [minute.row(*key) for key, minute in sorted(found.items())] for name, found in minutes.items()
    }


def all_minutes(rollout: Rollout, reference: Reference, before: int = NO_LIMIT) -> list[MinuteRow]:
    """Return every minute of one rollout up to but not including `before`."""
    name, sticky = str(rollout.pk), rollout.workload.unit != Workload.Unit.REQUEST
    ranges = tuple(MinuteRange(name, stage, 0, before) for stage in range(len(rollout.stages)))
    return minute_rows([MinuteQuery(reference, sticky, ranges)])[name]


@dataclass(slots=True)
class _ArmMinute:
    """One minute of one arm. Always a single row, because ingest accepts one version per arm."""

    sums: ArmSums = ArmSums()
    differing: Differing | None = None
    endpoints: dict[str, SliceSums] = field(default_factory=dict)
    cells: dict[int, Group] = field(default_factory=dict)


@dataclass(slots=True)
class _MinuteInProgress:
    """One minute of one stage, put together from the rows of its arms."""

    candidate: _ArmMinute = field(default_factory=_ArmMinute)
    baseline: _ArmMinute = field(default_factory=_ArmMinute)
    groups: dict[int, Group] = field(default_factory=dict)
    rehearsed: Rehearsed | None = None

    def add(self, row: Mapping[str, Any], query: MinuteQuery) -> None:
        arm = self.candidate if row["arm"] == "candidate" else self.baseline
        arm.sums = stored_sums.arm_sums(row, query.reference)
        arm.differing = stored_sums.differing(row)
        arm.endpoints = stored_sums.slices(row["endpoints"])
        if query.sticky:
            arm.cells = stored_sums.groups(row["cells"])
            if arm is self.baseline:
                self.groups = stored_sums.groups(row["groups"])
        if row["shadow"] != "{}" or row["mirror"] != "{}":
            rehearsed = Rehearsed(stored_sums.shadow(row["shadow"]), stored_sums.mirror(row["mirror"]))
            self.rehearsed = (self.rehearsed or Rehearsed()) + rehearsed

    def row(self, stage: int, minute: int) -> MinuteRow:
        candidate, baseline = self.candidate, self.baseline
        names = candidate.endpoints.keys() | baseline.endpoints.keys()
        return MinuteRow(
            stage,
            minute,
            candidate.sums,
            baseline.sums,
            self.groups,
            self.rehearsed,
            {n: (candidate.endpoints.get(n, _NO_TASKS), baseline.endpoints.get(n, _NO_TASKS)) for n in names},
            candidate.differing,
            baseline.differing,
            candidate.cells,
            baseline.cells,
        )


_NO_TASKS = SliceSums()


def baseline_sums(ranges: Sequence[MinuteRange]) -> dict[str, ArmSums]:
    """Return, by rollout, the baseline arm's counts over its ranges, without costs and tails."""
    sums = ", ".join(f"SUM(t.{name})" for name in _HEALTH)
    found: dict[str, ArmSums] = {}
    for rollout, _, *counts in _select_ranges(
        ranges, sums, "AND t.arm = 'baseline' GROUP BY v.column1, v.column2"
    ):
        counted = ArmSums.from_health(map(int, counts))
        found[rollout] = found[rollout] + counted if rollout in found else counted
    return found


def _select_ranges(ranges: Sequence[MinuteRange], columns: str, tail: str = "") -> Iterator[tuple[Any, ...]]:
    """Yield (rollout, stage, *columns) of the rows in the ranges. Each is one range of the index by stage."""
    for some in chunks(ranges, _ROWS):
        rows = [
            (name, stage, stored(moment(first)), stored(moment(before)))
            for name, stage, first, before in some
        ]
        table, parameters = table_of(rows, ("text", "integer", "timestamptz", "timestamptz"))
        # Only our own table and column names are formatted in; values are bound.
        statement = (
            # The limit tells SQLite how few ranges there are. It would otherwise expect a million and first
            # read the whole index into a Bloom filter.
            f"SELECT v.column1, v.column2, {columns} FROM (SELECT * FROM {table} LIMIT {len(rows)}) AS v "  # noqa: S608
            # A cross join fixes the order: otherwise SQLite reads the whole table and seeks in the ranges.
            f"CROSS JOIN {_TABLE} t WHERE t.rollout = v.column1 AND t.stage = v.column2 AND NOT (t.rollout = '') "
            f"AND t.minute >= v.column3 AND t.minute < v.column4 {tail}"
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            yield from cursor.fetchall()


Ends = tuple[datetime | None, datetime | None]


def stamped(rollout: Rollout) -> Ends:
    """Return the first and last minute of a rollout, as its routers stamped them. Reads the ends of the index
    per stage.
    """
    return stamped_of([rollout])[rollout.pk]


def stamped_of(rollouts: Sequence[Rollout]) -> dict[UUID, Ends]:
    """Return the same of several rollouts, in one query for up to 100 stages."""
    found = _ends([(each.pk, stage) for each in rollouts for stage in range(len(each.stages))])
    return {
        each.pk: (min(found[each.pk]), max(found[each.pk])) if each.pk in found else (None, None)
        for each in rollouts
    }


def stamped_in(rollout: Rollout, stage: int) -> Ends:
    """Return the first and last minute of one stage."""
    minutes = _ends([(rollout.pk, stage)]).get(rollout.pk)
    return (min(minutes), max(minutes)) if minutes else (None, None)


def _ends(stages: Sequence[tuple[UUID, int]]) -> dict[UUID, list[datetime]]:
    """Return the first and the last minute of each stage that has any, by rollout."""
    found: dict[UUID, list[datetime]] = {}
    for some in chunks(stages, _STAGES):
        ends = [
            f"SELECT %s, {end}(minute) FROM {_TABLE} WHERE rollout = %s AND stage = %s AND NOT (rollout = '')"  # noqa: S608
            for end in ("MIN", "MAX")
        ]
        values = [
            value for at, (pk, stage) in enumerate(some) for _ in ends for value in (at, str(pk), stage)
        ]
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(ends * len(some)), values)
            for at, minute in cursor.fetchall():
                if minute is not None:
                    found.setdefault(some[at][0], []).append(stored_moment(minute))
    return found


def telemetry(rollout: str, before: int, received_at: datetime | None) -> Telemetry:
    """Return the candidate's decisions older than the lag, and how many of its tasks ever finished. Reads all rows."""
    sums = ArmTotals.objects.filter(rollout=rollout, arm="candidate").aggregate(
        due=Sum(Greatest("decided", "tasks"), filter=Q(minute__lt=moment(before))), finished=Sum("tasks")
    )
    return Telemetry(
        candidate_decisions=sums["due"] or 0,
        candidate_outcomes=sums["finished"] or 0,
        newest_outcome_at=received_at,
    )


class Counted(NamedTuple):
    """Counts of judged minutes as known now, including late reports and grades."""

    tasks: int
    graded: int


NOTHING = Counted(0, 0)


def counted_by_now(rollout: str, cursors: Mapping[int, int]) -> dict[tuple[int, str], Counted]:
    """Return the counts by (stage, arm) over the minutes before the stage's cursor."""
    judged = Q()
    for stage, cursor in cursors.items():
        judged |= Q(stage=stage, minute__lt=moment(cursor))
    if not cursors:
        return {}
    rows = ArmTotals.objects.filter(judged, rollout=rollout).exclude(rollout="").order_by()
    sums = rows.values_list("stage", "arm").annotate(Sum("tasks"), graded=Sum(F("successes") + F("failures")))
    return {(stage, arm): Counted(tasks, graded) for stage, arm, tasks, graded in sums}


def shadow_and_mirror(rollout: Rollout) -> tuple[ShadowSums, MirrorSums]:
    """Return the sums of the shadow stage: decisions that were not enforced, and tasks that ran on both arms."""
    return together(shadow_and_mirror_by_day(rollout).values())


def shadow_and_mirror_by_day(
    rollout: Rollout, since: datetime | None = None
) -> dict[int, tuple[ShadowSums, MirrorSums]]:
    """Return the same by day (its first Unix second), from minute `since` on."""
    if Stage.from_dict(rollout.stages[0]).mode != "shadow":
        return {}
    rows = ArmTotals.of_rollout(rollout).filter(stage=0, **({"minute__gte": since} if since else {}))
    days: dict[int, tuple[list[Any], list[Any]]] = {}
    for minute, shadow, mirror in rows.values_list("minute", "shadow", "mirror").iterator():
        shadows, mirrors = days.setdefault(int(minute.timestamp()) // _DAY_S * _DAY_S, ([], []))
        shadows.append(shadow or {})
        mirrors.append(mirror or {})
    return {day: _rehearsed_sums(*parts) for day, parts in days.items()}


def together(parts: Iterable[tuple[ShadowSums, MirrorSums]]) -> tuple[ShadowSums, MirrorSums]:
    """Add up the sums of several periods, with their routes."""
    whole, candidate, baseline = Rehearsed(), Counter[str](), Counter[str]()
    for shadow, mirror in parts:
        whole += Rehearsed(shadow, mirror)
        candidate.update(shadow.candidate_routes)
        baseline.update(shadow.baseline_routes)
    return replace(whole.shadow, candidate_routes=candidate, baseline_routes=baseline), whole.mirror


def _rehearsed_sums(
    shadows: list[Mapping[str, Any]], mirrors: list[Mapping[str, Any]]
) -> tuple[ShadowSums, MirrorSums]:
    candidate, baseline = _routes(shadow.get("routes") or {} for shadow in shadows)
    whole = Rehearsed()
    for shadow, mirror in zip(shadows, mirrors, strict=True):
        whole += Rehearsed(stored_sums.read_shadow(shadow), stored_sums.read_mirror(mirror))
    return replace(whole.shadow, candidate_routes=candidate, baseline_routes=baseline), whole.mirror


def _routes(parts: Iterator[Mapping[str, int]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return decisions per model, of the candidate and of the baseline, from `served>candidate` counts."""
    candidate: dict[str, int] = {}
    baseline: dict[str, int] = {}
    for part in parts:
        for route, count in part.items():
            served, _, other = route.partition(">")
            baseline[served] = baseline.get(served, 0) + count
            candidate[other] = candidate.get(other, 0) + count
    return candidate, baseline


def minute_of(at: datetime) -> int:
    return int(at.timestamp() // 60)


def moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def stored_moment(value: Any) -> datetime:
    """Convert a time as a cursor returns it: SQLite stores text in UTC."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
