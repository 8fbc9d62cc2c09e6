"""Roll up the outcomes by hour and by day, in a job or on demand.

Ingest marks changed hours (`mark_changed`, in its own transaction). The job sums those hours again from the outcomes,
their days from the hours, and the running sums from the days. Whole rows are replaced, so nothing is added twice. An
hour that changes in the meantime stays marked, and the next turn processes it again. Only one process runs at a time:
PostgreSQL has an advisory lock for this, SQLite only one writer.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

from controlplane.core import clock
from controlplane.core.bulk import chunks, flat, places, stored
from pointsman.reporting.histogram import Histogram
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns
from rollout_app.review.models import (
    DayLatency,
    DayOutcomes,
    DayState,
    HourOutcomes,
    HourState,
    OwnerDay,
    RunningOutcomes,
    RunningState,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BUSY_S = 10.0  # seconds after which a turn of the job starts nothing more; the next turn does the rest
_AT_ONCE = 200  # workloads per transaction
_ROWS = 500  # rows per statement
_LOCK = 0x726F6C6C  # the advisory lock of the job
ROUTE = ("rollout", "stage", "arm", "version", "endpoint", "rule", "model")
ROLLED = Q(changes=F("rolled"))
READY = ROLLED & Q(final=True)  # the sums of the hour can replace its outcomes


def mark_changed(hours: Iterable[tuple[int, int, datetime]]) -> None:
    """Mark hours of (environment, workload, hour) as changed. Runs in ingest's transaction, so it must be cheap.

    Rows are written in key order, like all of ingest's writes, to avoid deadlocks.
    """
    rows = [
        (environment, workload, stored(hour), 1, 0, False)
        for environment, workload, hour in sorted(set(hours))
    ]
    table = HourState._meta.db_table
    for some in chunks(rows, _ROWS):
        statement = (
            f"INSERT INTO {table} (environment_id, workload_id, hour, changes, rolled, final) VALUES {places(some)} "  # noqa: S608 — our own table; values are bound
            f"ON CONFLICT (environment_id, workload_id, hour) DO UPDATE SET changes = {table}.changes + 1"
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, flat(some))


def hour_of(minute: datetime) -> datetime:
    return minute.replace(minute=0, second=0, microsecond=0)


# --- the job ---------------------------------------------------------------------------------------------


def roll_up(now: datetime | None = None, busy_s: float = BUSY_S) -> int:
    """Roll up what changed, oldest first. Return the number of workload hours processed."""
    now, began, done = now or clock.now(), time.monotonic(), 0
    while time.monotonic() - began < busy_s:
        turn = _one_turn(now)
        if not turn:
            break
        done += turn
    return done


def _one_turn(now: datetime) -> int:
    """Process the changed hours of one environment and day, for some workloads.

    Return 0 if nothing is left or another process is running.
    """
    pending = HourState.objects.filter(~ROLLED | Q(final=False, hour__lte=now - HOUR))
    first = pending.order_by("hour").first()
    if first is None:
        return 0
    day = first.hour.astimezone(UTC).date()
    marked = pending.filter(
        environment=first.environment_id, hour__gte=_start(day), hour__lt=_start(day) + DAY
    )
    found = list(marked.order_by("hour", "workload_id").values_list("pk", "workload_id", "hour", "changes"))
    workloads = sorted({workload for _, workload, _, _ in found})[:_AT_ONCE]
    found = [row for row in found if row[1] in set(workloads)]
    with transaction.atomic():
        if not _alone():
            return 0
        whole = sorted(set(workloads) - _partly_pruned(first.environment_id, workloads, day, now))
        for hour, rows in groupby((row for row in found if row[1] in set(whole)), key=lambda row: row[2]):
            _roll_hour(first.environment_id, [row[1] for row in rows], hour, is_over=hour + HOUR <= now)
        _roll_day(first.environment_id, whole, day)
        _roll_owners(first.environment_id, day)
        _invalidate(first.environment_id, whole, day)
    _keep_states(first.environment_id, workloads, day, found, now)
    return len(found)


def _partly_pruned(environment: int, workloads: Sequence[int], day: date, now: datetime) -> set[int]:
    """Return the workloads whose sums of this day must stay, because some of its outcomes are pruned already.

    What is reported for such a day now (a late grade, a rebuild) would replace the day by its remainder.
    """
    if _start(day) >= now - timedelta(days=settings.OUTCOME_RETENTION_DAYS):
        return set()
    summed = DayState.objects.filter(environment=environment, workload__in=workloads, day=day)
    return set(summed.values_list("workload_id", flat=True))


def _alone() -> bool:
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [_LOCK])
        return bool(cursor.fetchone()[0])


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _roll_hour(environment: int, workloads: Sequence[int], hour: datetime, *, is_over: bool) -> None:
    place = {"environment": environment, "workload__in": workloads}
    outcomes = OutcomeBucket.objects.filter(**place, minute__gte=hour, minute__lt=hour + HOUR)
    keys = ("workload_id", *ROUTE)
    latencies = _latencies(outcomes, keys) if is_over else {}
    HourOutcomes.objects.filter(**place, hour=hour).delete()
    HourOutcomes.objects.bulk_create(
        (
            HourOutcomes(
                environment_id=environment,
                hour=hour,
                **{"latency_histogram": latencies.get(key, {})},
                **named,
                **row,
            )
            for key, named, row in summed(outcomes, keys, columns.from_outcomes())
        ),
        batch_size=_ROWS,
    )


def _roll_day(environment: int, workloads: Sequence[int], day: date) -> None:
    place = {"environment": environment, "workload__in": workloads}
    start = _start(day)
    hours = HourOutcomes.objects.filter(**place, hour__gte=start, hour__lt=start + DAY)
    DayOutcomes.objects.filter(**place, day=day).delete()
    DayOutcomes.objects.bulk_create(
        (
            DayOutcomes(environment_id=environment, day=day, **named, **row)
            for _, named, row in summed(hours, ("workload_id", *ROUTE), columns.from_rows())
        ),
        batch_size=_ROWS,
    )
    DayLatency.objects.filter(**place, day=day).delete()
    DayLatency.objects.bulk_create(
        (
            DayLatency(
                environment_id=environment,
                workload_id=workload,
                day=day,
                endpoint=endpoint,
                **{"histogram": histogram},
            )
            for (workload, endpoint), histogram in _latencies(hours, ("workload_id", "endpoint")).items()
        ),
        batch_size=_ROWS,
    )


def _roll_owners(environment: int, day: date) -> None:
    days = DayOutcomes.objects.filter(environment=environment, day=day)
    OwnerDay.objects.filter(environment=environment, day=day).delete()
    OwnerDay.objects.bulk_create(
        OwnerDay(environment_id=environment, day=day, owner_id=owner, **row)
        for (owner,), _, row in summed(days, ("workload__owner",), columns.from_rows())
    )


def summed(
    rows: QuerySet[Any], keys: tuple[str, ...], aggregates: Mapping[str, Any]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]]:
    """Yield (key, the key by name, sums by column) of each group."""
    grouped = rows.order_by().values_list(*keys).annotate(**aggregates)
    for values in grouped.iterator(chunk_size=2_000):
        key = values[: len(keys)]
        yield key, dict(zip(keys, key, strict=True)), columns.as_row(values[len(keys) :])


def _latencies(rows: QuerySet[Any], keys: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return merged histograms by key."""
    merged: dict[tuple[Any, ...], Histogram] = defaultdict(Histogram)
    for *key, histogram in rows.order_by().values_list(*keys, "latency_histogram").iterator(chunk_size=2_000):
        if histogram:
            merge(merged[tuple(key)], histogram)
    return {key: {"zero": h.zero, "counts": h.counts} for key, h in merged.items()}


def merge(into: Histogram, stored_histogram: Mapping[str, Any]) -> None:
    """Add a stored histogram to `into`."""
    into.zero += stored_histogram.get("zero", 0)
    for bucket, count in (stored_histogram.get("counts") or {}).items():
        into.counts[int(bucket)] = into.counts.get(int(bucket), 0) + count


# --- running sums ----------------------------------------------------------------------------------------


def _invalidate(environment: int, workloads: Sequence[int], day: date) -> None:
    """Mark the running sums of `day` and later as outdated."""
    states = RunningState.objects.filter(environment=environment, workload__in=workloads)
    states.filter(valid_to__gte=day).update(valid_to=day - DAY)
    new = set(workloads) - set(states.values_list("workload_id", flat=True))
    RunningState.objects.bulk_create(
        RunningState(environment_id=environment, workload_id=workload, valid_to=day - DAY)
        for workload in sorted(new)
    )


def run_on(now: datetime | None = None) -> int:
    """Bring the running sums up to today, even without new outcomes. Return the number of workloads."""
    today, done = (now or clock.now()).astimezone(UTC).date(), 0
    behind: dict[tuple[int, date], list[int]] = defaultdict(list)
    for environment, workload, day in RunningState.objects.filter(valid_to__lt=today).values_list(
        "environment_id", "workload_id", "valid_to"
    ):
        behind[environment, day].append(workload)
    for (environment, day), workloads in sorted(behind.items()):
        for some in chunks(sorted(workloads), _AT_ONCE):
            with transaction.atomic():
                if _alone():
                    _run_from(environment, some, day + DAY, today)
                    done += len(some)
    return done


def _run_from(environment: int, workloads: Sequence[int], first: date, today: date) -> None:
    """Continue from the running sums of the day before `first`, which exist unless it is a workload's first day."""
    place = {"environment": environment, "workload__in": workloads}
    running: dict[tuple[int, str], dict[str, Any]] = defaultdict(lambda: dict.fromkeys(columns.COLUMNS, 0))
    before = RunningOutcomes.objects.filter(**place, day=first - DAY)
    for workload, endpoint, *values in before.values_list("workload_id", "endpoint", *columns.COLUMNS):
        running[workload, endpoint] = columns.as_row(values)
    own: dict[date, list[tuple[tuple[int, str], dict[str, Any]]]] = defaultdict(list)
    days = DayOutcomes.objects.filter(**place, day__gte=first, day__lte=today)
    for key, _, row in summed(days, ("day", "workload_id", "endpoint"), columns.from_rows()):
        own[key[0]].append(((key[1], key[2]), row))
    RunningOutcomes.objects.filter(**place, day__gte=first).delete()
    day = first
    while day <= today:
        for key, row in own[day]:
            running[key] = {name: running[key][name] + row[name] for name in columns.COLUMNS}
        _keep_running(environment, day, running)
        day += DAY
    RunningState.objects.filter(**place).update(valid_to=today, rolled_at=clock.now())


def _keep_running(environment: int, day: date, running: Mapping[tuple[int, str], dict[str, Any]]) -> None:
    RunningOutcomes.objects.bulk_create(
        (
            RunningOutcomes(
                environment_id=environment, workload_id=workload, endpoint=endpoint, day=day, **row
            )
            for (workload, endpoint), row in running.items()
        ),
        batch_size=_ROWS,
    )


# --- recording what is done ------------------------------------------------------------------------------


def _keep_states(
    environment: int,
    workloads: Sequence[int],
    day: date,
    found: Sequence[tuple[int, int, datetime, int]],
    now: datetime,
) -> None:
    """Record what the sums cover. A locked row is just being changed: skip it, so that it stays marked."""
    covered = {pk: {"rolled": changes, "final": hour + HOUR <= now} for pk, _, hour, changes in found}
    with transaction.atomic():
        states = (
            HourState.objects.select_for_update(skip_locked=True, no_key=True)
            if _locks()
            else HourState.objects
        )
        for pk in states.filter(pk__in=covered).order_by("pk").values_list("pk", flat=True):
            HourState.objects.filter(pk=pk).update(**covered[pk])
    if _start(day) + DAY <= now:
        ready = [DayState(environment_id=environment, workload_id=w, day=day) for w in workloads]
        DayState.objects.bulk_create(ready, ignore_conflicts=True, batch_size=_ROWS)


def _locks() -> bool:
    return connection.features.has_select_for_update_skip_locked


def refresh(now: datetime | None = None) -> None:
    """Run the periodic job."""
    roll_up(now)
    run_on(now)


def prune(now: datetime | None = None) -> None:
    """Delete old rows: hours with the outcomes that they sum up, days with the totals by arm."""
    now = now or clock.now()
    hours = now - timedelta(days=settings.OUTCOME_RETENTION_DAYS)
    days = (now - timedelta(days=settings.TOTALS_RETENTION_DAYS)).date()
    for model, condition in (
        (HourOutcomes, Q(hour__lt=hours)),
        (HourState, Q(hour__lt=hours)),
        (DayOutcomes, Q(day__lt=days)),
        (DayLatency, Q(day__lt=days)),
        (DayState, Q(day__lt=days)),
        (RunningOutcomes, Q(day__lt=days)),
        (OwnerDay, Q(day__lt=days)),
    ):
        rows = model._default_manager.filter(condition)
        while pks := list(rows.values_list("pk", flat=True)[:5_000]):
            model._default_manager.filter(pk__in=pks).delete()
