"""Differences and totals of running sums, computed by the database. Only reads.

The sums between two days are the difference of two rows per endpoint. For 1,000 workloads with 3 endpoints, 90 days of
spend by week are 42,000 rows, which the database adds up much faster than Python could read them.

Until the job has brought the running sums up to today, the newest day stands for the days after it. No difference
reaches back before the days that pruning keeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection

from controlplane.access.models import Team
from policies_app.models import Environment, Workload
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns
from rollout_app.review.models import RunningOutcomes, RunningState

_TABLE, _WORKLOAD, _TEAM = (model._meta.db_table for model in (RunningOutcomes, Workload, Team))
_COLUMNS = columns.IN_ORDER[: columns.IN_ORDER.index("attempts") + 1]  # the leading figures of `OutcomeSums`
_SAME_CELL = " AND ".join(
    f"{{0}}.{key} = {{1}}.{key}" for key in ("environment_id", "workload_id", "endpoint")
)


@dataclass(frozen=True, slots=True)
class Known:
    """The first and the newest day with running sums, and when they were last updated; None if there are none.

    `kept`: the first day that pruning keeps.
    """

    first: date | None
    newest: date | None
    as_of: datetime | None
    kept: date

    def bound(self, day: date) -> date:
        """Return the day whose running sums stand for those of `day`."""
        return min(max(day, self.kept), self.newest or day)

    def reaches(self, day: date) -> bool:
        """Return whether outcomes are known from this day on."""
        return self.first is not None and max(self.first, self.kept) <= day

    def covers(self, first: date, last: date) -> bool:
        """Return whether any of these days is summed. Sums reach back to the first day and the days that are kept."""
        if self.first is None or self.newest is None:
            return False
        return first <= self.newest and last >= self.first and last > self.kept


class RunningCell(NamedTuple):
    """An endpoint of a workload: the leading figures of `OutcomeSums` after the middle day, and up to it."""

    workload: int
    endpoint: str
    now: tuple[int, ...]
    before: tuple[int, ...]


class Spent(NamedTuple):
    """The tasks of an owner after the middle day, up to `day`. Money in nano-USD.

    `unpriced`: tasks without a known cost; `priced`: those with one.
    `covered` and `tasks` are of endpoints with a known cost per task before the middle; `would` is what these tasks
    would have cost then.
    """

    day: date
    owner: str
    cost: int
    priced: int
    unpriced: int
    covered: int
    tasks: int
    would: float


def known(environment: Environment, now: datetime) -> Known:
    """Return what is known of an environment, in one query that reads the ends of indexes."""
    end = f"(SELECT {{}}(day) FROM {_TABLE} WHERE environment_id = %s)"  # noqa: S608 — our own names; bound values
    statement = (
        f"SELECT {end.format('MIN')}, {end.format('MAX')}, "  # noqa: S608 — as above
        f"(SELECT MAX(rolled_at) FROM {RunningState._meta.db_table} WHERE environment_id = %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [environment.pk] * 3)
        first, newest, at = cursor.fetchone()
    kept = (now - timedelta(days=settings.TOTALS_RETENTION_DAYS)).astimezone(UTC).date()
    return Known(_day(first), _day(newest), _moment(at), kept)


def begin_of_traffic(
    environment: Environment, first: date | None, now: datetime, workload: Workload | None = None
) -> datetime | None:
    """Return when the outcomes begin that are known since the day `first`: their first minute.

    Of a long time the first day is a small part, so then it is that day's midnight, without a query.
    """
    if first is None:
        return None
    start = datetime.combine(first, time.min, UTC)
    if now - start > _LONG:
        return start
    return first_minute(environment, workload, minute__gte=start, minute__lte=now) or start


def first_minute(environment: Environment, workload: Workload | None, **bounds: datetime) -> datetime | None:
    """Return the first minute with outcomes within the bounds (`minute__gte`, …). No workload: of all."""
    rows = OutcomeBucket.objects.filter(environment=environment, **bounds)
    if workload is not None:
        rows = rows.filter(workload=workload)
    return rows.order_by("minute").values_list("minute", flat=True).first()


_LONG = timedelta(days=8)


def cells(
    environment: Environment, days: tuple[date, date, date], owner: str | None
) -> Iterator[RunningCell]:
    """Return every endpoint that had tasks after the first of three days, up to the last. `owner`: a team's name."""
    start, middle, end = map(_stored, days)
    now = ", ".join(f"e.{name} - COALESCE(m.{name}, 0)" for name in _COLUMNS)
    before = ", ".join(f"COALESCE(m.{name}, 0) - COALESCE(s.{name}, 0)" for name in _COLUMNS)
    mine, team = _of(owner, "e")
    statement = (
        f"SELECT e.workload_id, e.endpoint, {now}, {before} FROM {_TABLE} e "  # noqa: S608 — as above
        f"LEFT JOIN {_TABLE} m ON {_SAME_CELL.format('m', 'e')} AND m.day = %s "
        f"LEFT JOIN {_TABLE} s ON {_SAME_CELL.format('s', 'e')} AND s.day = %s "
        f"WHERE e.environment_id = %s AND e.day = %s{mine}"
    )
    half = 2 + len(_COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(statement, [middle, start, environment.pk, end, *team])
        for row in cursor.fetchall():
            cell = RunningCell(row[0], row[1], row[2:half], row[half:])
            if any(cell.now) or any(cell.before):
                yield cell


def spent(
    environment: Environment, days: tuple[date, date], ends: Sequence[date], *, by_owner: bool
) -> Iterator[Spent]:
    """Return the spend after the second of two days, up to each of `ends`, priced at the cost per task between the two.

    Always of all owners: limited to one team's workloads, SQLite would scan all of `p` for each row.
    """
    start, middle = map(_stored, days)
    owners = f"JOIN {_WORKLOAD} w ON w.id = r.workload_id JOIN {_TEAM} t ON t.id = w.owner_id "
    is_known = "CASE WHEN p.was IS NOT NULL THEN r.{0} - p.{0} ELSE 0 END"
    statement = (
        f"SELECT r.day, {'t.name' if by_owner else repr('')}, SUM(r.cost_sum - COALESCE(p.cost_sum, 0)), "  # noqa: S608 — as above
        "SUM(r.cost_n - COALESCE(p.cost_n, 0)), "
        "SUM(r.tasks - r.cost_n - COALESCE(p.tasks - p.cost_n, 0)), "
        f"SUM({is_known.format('cost_sum')}), SUM({is_known.format('cost_n')}), "
        "SUM(COALESCE((r.cost_n - p.cost_n) * p.was, 0)) "
        f"FROM {_TABLE} r {owners if by_owner else ''}"
        "LEFT JOIN (SELECT m.workload_id, m.endpoint, m.tasks, m.cost_n, m.cost_sum, "
        "CAST(m.cost_sum - COALESCE(s.cost_sum, 0) AS double precision) "
        "/ NULLIF(m.cost_n - COALESCE(s.cost_n, 0), 0) AS was "
        f"FROM {_TABLE} m LEFT JOIN {_TABLE} s ON {_SAME_CELL.format('s', 'm')} AND s.day = %s "
        "WHERE m.environment_id = %s AND m.day = %s) p "
        "ON p.workload_id = r.workload_id AND p.endpoint = r.endpoint "
        f"WHERE r.environment_id = %s AND r.day IN ({', '.join(['%s'] * len(ends))}) "
        f"GROUP BY r.day{', t.name' if by_owner else ''}"
    )
    place = environment.pk
    with connection.cursor() as cursor:
        cursor.execute(statement, [start, place, middle, place, *map(_stored, ends)])
        for day, name, *counts, would in cursor.fetchall():
            cost, priced, unpriced, covered, tasks = map(int, counts)
            yield Spent(_day(day) or ends[-1], name, cost, priced, unpriced, covered, tasks, float(would))


def _of(owner: str | None, rows: str) -> tuple[str, list[str]]:
    if owner is None:
        return "", []
    of_team = f"SELECT w.id FROM {_WORKLOAD} w JOIN {_TEAM} t ON t.id = w.owner_id WHERE t.name = %s"  # noqa: S608 — as above
    return f" AND {rows}.workload_id IN ({of_team})", [owner]


def _stored(day: date) -> Any:
    return connection.ops.adapt_datefield_value(day)


def _day(value: Any) -> date | None:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value
