"""Counts what routers report: each batch once, folded in memory, added in one transaction. Prunes by age.

A group of submissions is one transaction in a fixed order: (1) the ids, inserted in their order, where
another process with the same id makes us wait or drop ours; (2) on PostgreSQL one advisory lock per
environment, in order; (3) the sums, upserted in the order of their keys. Nobody waits backwards, so nobody
deadlocks. The lock makes "read the histograms, add, write" safe without a function in the database; SQLite
has one writer by nature.

Verdicts never scan the buckets: `ArmTotals` keeps one row per arm and minute, written in the same
transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import starmap
from operator import add
from typing import Any, NamedTuple

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from controlplane import clock
from rollout_app.bulk import chunks, flat, places
from rollout_app.models import AcceptedBatch, ArmTotals, Feedback, OutcomeBucket

NUMBERS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "attempts",
    "quality_n", "quality_sum", "quality_sum_sq", "confidence_n", "confidence_sum", "confidence_sum_sq",
    "cost_n", "cost_sum", "cost_sum_sq", "cost_on_success",
    "capped_sum", "capped_sum_sq", "capped_on_success",
)  # fmt: skip
DETAILS = (
    "cost_histogram", "latency_histogram", "groups", "tasks_by_model", "errors_by_kind", "shadow", "mirror",
)  # fmt: skip
# Longer than the oldest minute that ingest takes (7 days): a doubled batch always meets its first.
BATCHES_KEPT = timedelta(days=8)
_ROWS = 400  # of one statement; SQLite takes 32,766 parameters
_LOCK = 0x706F696E  # our advisory locks are (this, environment)


class Key(NamedTuple):
    """A bucket's place. The order is that of the upserts."""

    environment_id: int
    workload_id: int
    minute: datetime
    rollout: str
    stage: int
    arm: str
    version: int
    endpoint: str
    rule: str
    model: str

    def of_arm(self) -> "ArmKey":
        return ArmKey(*self[:7])


class ArmKey(NamedTuple):
    environment_id: int
    workload_id: int
    minute: datetime
    rollout: str
    stage: int
    arm: str
    version: int


class Contribution(NamedTuple):
    """What one bucket adds, in the order of `NUMBERS` and `DETAILS`."""

    key: Key
    numbers: list[float]
    details: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """One request: its parts each count once by id (`b:<uuid>`, `e:<event id>`); it is answered whole."""

    environment_id: int
    parts: Mapping[str, Sequence[Contribution]]
    feedback: Sequence[Feedback] = ()
    accepted: int = 0  # what is answered


class Sums:
    """The figures of one key, adding up."""

    __slots__ = ("details", "numbers")

    def __init__(self) -> None:
        self.numbers: list[float] = [0] * len(NUMBERS)
        self.details: list[dict[str, Any]] = [{} for _ in DETAILS]

    def add(self, numbers: Sequence[float], details: Sequence[Mapping[str, Any]]) -> None:
        self.numbers = list(map(add, self.numbers, numbers))
        for mine, other in zip(self.details, details, strict=True):
            if other:
                add_into(mine, other)


def add_into(mine: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Add maps of figures: numbers by name, maps within maps, lists by place. Leaves `other` alone."""
    for name, value in other.items():
        kind = type(value)
        if kind is int or kind is float:
            mine[name] = mine.get(name, 0) + value
        elif kind is list:
            mine[name] = list(starmap(add, zip(mine.get(name, [0] * len(value)), value, strict=True)))
        else:
            add_into(mine.setdefault(name, {}), value)


@dataclass(slots=True)
class Accepted:
    """What a group came to: an answer per submission, and the rollouts whose figures moved."""

    answers: list[int] = field(default_factory=list)
    rollouts: set[str] = field(default_factory=set)


def accept(submissions: Sequence[Submission]) -> Accepted:
    """Count a group in one transaction. Returns after the commit, or raises with nothing counted."""
    with transaction.atomic():
        return _accept(submissions)


def _accept(submissions: Sequence[Submission]) -> Accepted:
    fresh = _claim(submissions)
    buckets = _folded(submissions, fresh)
    arms: dict[ArmKey, Sums] = {}
    for key, sums in buckets.items():
        arm = arms.get(key.of_arm())
        if arm is None:
            arm = arms[key.of_arm()] = Sums()
        arm.add(sums.numbers, sums.details)
    if buckets:
        _lock({key.environment_id for key in buckets})
        _upsert(OutcomeBucket, Key._fields, buckets)
        _upsert(ArmTotals, ArmKey._fields, arms)
    _keep_feedback(submissions)
    rollouts = {key.rollout for key in arms if key.rollout}
    return Accepted(_answers(submissions, fresh), rollouts)


def _claim(submissions: Sequence[Submission]) -> set[tuple[int, str]]:
    """Insert the ids in order and return those that were not there: the others were counted before."""
    at = connection.ops.adapt_datetimefield_value(datetime.now(UTC))
    claims = {
        (submission.environment_id, part): (submission.environment_id, part, submission.accepted, at)
        for submission in submissions
        for part in submission.parts
    }
    fresh: set[tuple[int, str]] = set()
    table = AcceptedBatch._meta.db_table
    with connection.cursor() as cursor:
        for chunk in chunks([claims[place] for place in sorted(claims)], 2_000):
            # Only our own table's name is formatted in; values are bound.
            statement = (
                f"INSERT INTO {table} (environment_id, batch, accepted, at) VALUES {places(chunk)} "  # noqa: S608
                "ON CONFLICT (environment_id, batch) DO NOTHING RETURNING environment_id, batch"
            )
            cursor.execute(statement, flat(chunk))
            fresh.update(cursor.fetchall())
    return fresh


def _folded(submissions: Sequence[Submission], fresh: Set[tuple[int, str]]) -> dict[Key, Sums]:
    """The sums of what is new, each id once."""
    buckets: dict[Key, Sums] = {}
    left = set(fresh)
    for submission in submissions:
        for part, contributions in submission.parts.items():
            place = (submission.environment_id, part)
            if place not in left:
                continue
            left.discard(place)  # the same id again within the group adds nothing
            for key, numbers, details in contributions:
                sums = buckets.get(key)
                if sums is None:
                    sums = buckets[key] = Sums()
                sums.add(numbers, details)
    return buckets


def _answers(submissions: Sequence[Submission], fresh: Set[tuple[int, str]]) -> list[int]:
    """What each is told. A batch that was counted before is answered alike, whatever its body is now."""
    asked = [(s.environment_id, next(iter(s.parts), "")) for s in submissions]
    again = [batch for environment, batch in asked if batch[:2] == "b:" and (environment, batch) not in fresh]
    rows = AcceptedBatch.objects.filter(batch__in=again) if again else AcceptedBatch.objects.none()
    told = {(e, b): accepted for e, b, accepted in rows.values_list("environment_id", "batch", "accepted")}
    return [told.get(place, s.accepted) for place, s in zip(asked, submissions, strict=True)]


def _lock(environments: Iterable[int]) -> None:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        for environment in sorted(environments):
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK, environment])


def _upsert(model: type[Model], key_fields: Sequence[str], sums: Mapping[Any, Sums]) -> None:
    """Add the sums to their rows, in the order of the keys."""
    table = model._meta.db_table
    columns = [*key_fields, *NUMBERS, *DETAILS]
    updates = [f"{name} = {table}.{name} + excluded.{name}" for name in NUMBERS]
    updates += [f"{name} = excluded.{name}" for name in DETAILS]
    for keys in chunks(sorted(sums), _ROWS):
        _add_stored_details(table, key_fields, keys, sums)
        rows = [_row(key, sums[key]) for key in keys]
        # Names of our own tables and columns only; values are bound.
        statement = (
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES {places(rows)} "  # noqa: S608
            f"ON CONFLICT ({', '.join(key_fields)}) DO UPDATE SET {', '.join(updates)}"
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, flat(rows))


def _add_stored_details(
    table: str, key_fields: Sequence[str], keys: Sequence[Any], sums: Mapping[Any, Sums]
) -> None:
    """Maps cannot be added by the upsert: read those on record and add them here, under the lock."""
    matches = " AND ".join(f"t.{name} = v.column{place}" for place, name in enumerate(key_fields, start=2))
    rows = [(number, *_stored(key)) for number, key in enumerate(keys)]
    statement = (
        f"SELECT v.column1, {', '.join(f't.{name}' for name in DETAILS)} "  # noqa: S608 — our own names
        f"FROM (VALUES {places(rows)}) AS v JOIN {table} t ON {matches}"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, flat(rows))
        for number, *stored in cursor.fetchall():
            details = sums[keys[number]].details
            for mine, text in zip(details, stored, strict=True):
                if text != "{}":
                    add_into(mine, msgspec.json.decode(text))


def _stored(key: Any) -> tuple[Any, ...]:
    minute = connection.ops.adapt_datetimefield_value(key.minute)
    return (*key[:2], minute, *key[3:])


def _row(key: Any, sums: Sums) -> tuple[Any, ...]:
    details = [msgspec.json.encode(value).decode() if value else "{}" for value in sums.details]
    return (*_stored(key), *sums.numbers, *details)


def _keep_feedback(submissions: Sequence[Submission]) -> None:
    rows = [row for submission in submissions for row in submission.feedback]
    rows.sort(key=lambda row: (row.environment_id, row.decision_sha256, row.kind))
    if rows:
        Feedback.objects.bulk_create(rows, batch_size=500, ignore_conflicts=True)


def prune(now: datetime | None = None) -> dict[str, int]:
    """Delete what is past its retention, a few thousand rows at a time so that no lock lasts."""
    now = now or clock.now()
    kept = timedelta(days=settings.OUTCOME_RETENTION_DAYS)
    totals_kept = timedelta(days=settings.TOTALS_RETENTION_DAYS)
    limits: list[tuple[type[Model], str, datetime]] = [
        (OutcomeBucket, "minute", now - kept),
        (ArmTotals, "minute", now - totals_kept),
        (Feedback, "at", now - totals_kept),
        (AcceptedBatch, "at", now - BATCHES_KEPT),
    ]
    return {model.__name__: sum(_deleted(model, column, limit)) for model, column, limit in limits}


def _deleted(model: type[Model], column: str, limit: datetime) -> Iterator[int]:
    rows = model._default_manager.filter(**{f"{column}__lt": limit})
    while pks := list(rows.values_list("pk", flat=True)[:5_000]):
        yield model._default_manager.filter(pk__in=pks).delete()[0]
