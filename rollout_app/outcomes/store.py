"""Store what routers report: count each batch once, add it to the totals, and prune by age.

A few submissions at a time are added to their rows at once, in the transaction that stores their ids (`count`). Under
load that would rewrite the same rows a hundred times a second. Then a group is stored as one `DeferredGroup` row with
its ids, which is all that its answer waits for, and also added up in this process's memory (`defer`). Every few
seconds the sum of many groups is added to the rows, in the transaction that deletes their `DeferredGroup` rows
(`flush`). Only the process that deletes a group's row counts it, so another process can count the groups of a killed
one (`flush_abandoned`), and nothing is counted twice.

Every transaction takes locks in the same order, so there are no deadlocks: (1) the ids of the batches, sorted;
another process with the same id makes us wait, or our copy is dropped; (2) the feedback, likewise; (3) the rows of
groups, skipping those that another process has locked; (4) on PostgreSQL one advisory lock per environment, sorted;
(5) the sums, in the order of their keys. The advisory lock makes "read the rows, add, write" safe without a function
in the database; SQLite allows only one writer.

Verdicts never scan the buckets: `ArmTotals` keeps one row per arm and minute, written in the same transaction.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import zstandard
from django.conf import settings
from django.db import DataError, connection, transaction
from django.db.models import Model, Q, QuerySet

from controlplane.core import clock
from controlplane.core.bulk import chunks, encode, stored
from rollout_app.models import AcceptedBatch, ArmTotals, DeferredGroup, Feedback, OutcomeBucket, SampledInput
from rollout_app.outcomes.aggregate import (
    NUMBERS,
    ArmContribution,
    Contribution,
    Counts,
    Figures,
    Groups,
    RouteKey,
    Totals,
)
from rollout_app.outcomes.upserts import add_to_rows, rows_of
from rollout_app.review.rollups import hour_of, mark_changed

log = logging.getLogger(__name__)

SAMPLES_KEPT = timedelta(days=7)
# Longer than the oldest minute that ingest accepts (7 days), so a repeated batch always finds the first one.
BATCHES_KEPT = timedelta(days=8)
# A live process flushes its groups much sooner; taking one away would only waste its work.
ABANDONED_AFTER = timedelta(seconds=15)
RETRY_UNREADABLE_AFTER = timedelta(hours=1)
_ABANDONED_AT_ONCE = 20  # groups per transaction
# What the content of one request can cause. It must not keep the others from being counted.
BAD_DATA = (DataError, ValueError, ArithmeticError)
_IDS = 2_000  # ids per statement
_LOCK = 0x706F696E  # our advisory locks are (this, environment)


class _FormerContribution(NamedTuple):
    """A deferred contribution in the format before routers reported graded costs and differing tasks."""

    key: RouteKey
    numbers: Figures
    details: tuple[Counts, Counts, Groups, Counts, Counts, Counts, Counts]


class _DeferredBody(msgspec.Struct):
    """The contributions of a deferred group."""

    routes: list[Contribution]
    arms: list[ArmContribution]


_body_decoder = msgspec.msgpack.Decoder(list[_FormerContribution] | _DeferredBody)


Contributions = Sequence[Contribution | ArmContribution]


class Grade(NamedTuple):
    """A feedback item, and how it changes the sums of its task's minute. No changes if its kind does not grade."""

    row: Feedback
    changes: Contributions

    @property
    def place(self) -> tuple[int, str, str]:
        """The key by which it is counted once."""
        return self.row.environment_id, self.row.decision_sha256, self.row.kind


@dataclass(frozen=True, slots=True)
class Submission:
    """One request. Each part counts once by its id (`b:<uuid>`, `e:<event id>`); the request gets one answer."""

    environment_id: int
    parts: Mapping[str, Contributions]
    feedback: Sequence[Grade] = ()
    accepted: int = 0  # the number in the answer


@dataclass(slots=True)
class Accepted:
    """The result of a group: an answer per submission, and the rollouts whose figures changed."""

    answers: list[int] = field(default_factory=list)
    rollouts: set[str] = field(default_factory=set)


class DeferredGroups:
    """The groups that this process has deferred and not flushed, and their sums. For use by one thread."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.totals = Totals()
        self.began = 0.0  # monotonic time of the first group

    def add(self, group: int, contributions: Contributions) -> None:
        if not self.groups:
            self.began = time.monotonic()
        self.groups.append(group)
        self.totals.add(contributions)

    def clear(self) -> None:
        self.groups, self.totals = [], Totals()


# --- counting -----------------------------------------------------------------------------------------


def count(submissions: Sequence[Submission]) -> Accepted:
    """Count a group in one transaction. Returns after the commit, or raises with nothing counted."""
    with transaction.atomic():
        fresh = _claim_ids(submissions)
        totals = Totals()
        totals.add(_fresh_contributions(submissions, fresh))
        totals.add(_fresh_grades(submissions))
        return Accepted(_answers(submissions, fresh), _add_to_rows(totals))


def defer(submissions: Sequence[Submission], deferred: DeferredGroups) -> Accepted:
    """Store a group, to be counted by `flush`. Returns after the commit, or raises with nothing stored."""
    with transaction.atomic():
        fresh = _claim_ids(submissions)
        contributions = [*_fresh_contributions(submissions, fresh), *_fresh_grades(submissions)]
        group = DeferredGroup.objects.create(body=_packed(contributions)).pk if contributions else None
        accepted = Accepted(_answers(submissions, fresh))
    if group is not None:
        deferred.add(group, contributions)
    return accepted


def flush(deferred: DeferredGroups) -> set[str]:
    """Count what was deferred. Return the rollouts whose figures changed. Always empties `deferred`.

    If it fails, or its success is unknown, nothing is lost or counted twice: the remaining rows are the groups that
    are not counted yet, and `flush_abandoned` finds them.
    """
    try:
        with transaction.atomic():
            deleted, _ = DeferredGroup.objects.filter(pk__in=deferred.groups).delete()
            if deleted == len(deferred.groups):
                return _add_to_rows(deferred.totals)
            # Another process considered a group abandoned and counted it, so our sums are too large.
            transaction.set_rollback(True)
            return set()
    finally:
        deferred.clear()


def flush_abandoned(now: datetime | None = None) -> tuple[int, set[str]]:
    """Count some groups that were never flushed. Return how many, and the rollouts whose figures changed.

    A group that cannot be read, or not be counted, is tried again after `RETRY_UNREADABLE_AFTER`. Its outcomes were
    accepted, so it is never dropped.
    """
    now = now or clock.now()
    try:
        return _count_abandoned(now, _ABANDONED_AT_ONCE)
    except BAD_DATA:
        try:
            return _count_abandoned(now, 1)
        except BAD_DATA:
            _set_aside(now)
            return 0, set()


def _abandoned(now: datetime) -> QuerySet[DeferredGroup]:
    # A time further in the future than we ever set was written by a clock that has been corrected since.
    past = Q(at__lt=now - ABANDONED_AFTER) | Q(at__gt=now + RETRY_UNREADABLE_AFTER)
    return DeferredGroup.objects.select_for_update(skip_locked=True).filter(past).order_by("pk")


def _set_aside(now: datetime) -> None:
    with transaction.atomic():
        for pk in list(_abandoned(now).values_list("pk", flat=True)[:1]):
            log.exception("deferred group %d cannot be counted; it is kept and tried again", pk)
            DeferredGroup.objects.filter(pk=pk).update(at=now + RETRY_UNREADABLE_AFTER)


def _count_abandoned(now: datetime, most: int) -> tuple[int, set[str]]:
    with transaction.atomic():
        groups = dict(_abandoned(now).values_list("pk", "body")[:most])
        totals, unread = Totals(), set()
        for pk, body in groups.items():
            try:
                totals.add(_unpacked(body))
            except (msgspec.MsgspecError, zstandard.ZstdError):
                log.exception("deferred group %d cannot be read; it is kept and tried again", pk)
                unread.add(pk)
        DeferredGroup.objects.filter(pk__in=unread).update(at=now + RETRY_UNREADABLE_AFTER)
        DeferredGroup.objects.filter(pk__in=groups.keys() - unread).delete()
        return len(groups) - len(unread), _add_to_rows(totals)


# --- inside -------------------------------------------------------------------------------------------


def _claim_ids(submissions: Sequence[Submission]) -> set[tuple[int, str]]:
    """Insert the ids in order. Return the new ones; the others were counted before."""
    claims = {
        (submission.environment_id, part): submission.accepted
        for submission in submissions
        for part in submission.parts
    }
    fresh: set[tuple[int, str]] = set()
    columns = ("environment_id", "batch", "accepted")
    at = stored(clock.running.now() or clock.now())
    # Only our own table and column names are formatted in; values are bound.
    statement = (
        f"INSERT INTO {AcceptedBatch._meta.db_table} ({', '.join(columns)}, at) "  # noqa: S608
        f"SELECT {', '.join(columns)}, %s FROM {rows_of(AcceptedBatch, columns)} WHERE true "
        "ON CONFLICT (environment_id, batch) DO NOTHING RETURNING environment_id, batch"
    )
    with connection.cursor() as cursor:
        for places in chunks(sorted(claims), _IDS):
            rows = [dict(zip(columns, (*place, claims[place]), strict=True)) for place in places]
            cursor.execute(statement, [at, encode(rows)])
            fresh.update(cursor.fetchall())
    return fresh


def _fresh_contributions(
    submissions: Sequence[Submission], fresh: Set[tuple[int, str]]
) -> Iterator[Contribution | ArmContribution]:
    """Yield the contributions of the new ids, each id once."""
    left = set(fresh)
    for submission in submissions:
        for part, contributions in submission.parts.items():
            place = (submission.environment_id, part)
            if place in left:
                left.discard(place)  # a repeated id within the group adds nothing
                yield from contributions


def _answers(submissions: Sequence[Submission], fresh: Set[tuple[int, str]]) -> list[int]:
    """Return the number for each answer. A repeated batch gets its first answer, whatever its body is now."""
    places = [(s.environment_id, next(iter(s.parts), "")) for s in submissions]
    again = [
        batch for environment, batch in places if batch[:2] == "b:" and (environment, batch) not in fresh
    ]
    rows = AcceptedBatch.objects.filter(batch__in=again) if again else AcceptedBatch.objects.none()
    first = {(e, b): accepted for e, b, accepted in rows.values_list("environment_id", "batch", "accepted")}
    return [first.get(place, s.accepted) for place, s in zip(places, submissions, strict=True)]


def _add_to_rows(totals: Totals) -> set[str]:
    """Add the totals to their rows, by route and by arm. Return the rollouts among them."""
    if not totals:
        return set()
    arms = totals.by_arm()
    _lock({key.environment_id for key in arms})
    add_to_rows(OutcomeBucket, totals.routes)
    add_to_rows(ArmTotals, arms)
    mark_changed((key.environment_id, key.workload_id, hour_of(key.minute)) for key in arms)
    return {key.rollout for key in arms if key.rollout}


def _lock(environments: Iterable[int]) -> None:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        for environment in sorted(environments):
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK, environment])


def _packed(contributions: Contributions) -> bytes:
    arms = [one for one in contributions if isinstance(one, ArmContribution)]
    routes = [one for one in contributions if isinstance(one, Contribution)]
    # The fastest level costs a few microseconds per batch and writes a tenth as much to disk.
    compressor = zstandard.ZstdCompressor(level=-1)
    return compressor.compress(msgspec.msgpack.encode(_DeferredBody(routes, arms)))


def _unpacked(body: bytes | memoryview) -> Contributions:
    read = _body_decoder.decode(zstandard.ZstdDecompressor().decompress(body))
    if isinstance(read, _DeferredBody):
        return [*read.routes, *read.arms]
    missing = [0] * (len(NUMBERS) - len(read[0].numbers)) if read else []
    return [Contribution(one.key, one.numbers + missing, (*one.details, {})) for one in read]


def _fresh_grades(submissions: Sequence[Submission]) -> Iterator[Contribution | ArmContribution]:
    """Insert the feedback in order. Yield how the new items change the sums, each once."""
    grades = {
        grade.place: grade for submission in reversed(submissions) for grade in reversed(submission.feedback)
    }
    columns = [str(field.column) for field in Feedback._meta.concrete_fields if not field.primary_key]
    statement = (
        f"INSERT INTO {Feedback._meta.db_table} ({', '.join(columns)}) "  # noqa: S608 — our own names; bound values
        f"SELECT {', '.join(columns)} FROM {rows_of(Feedback, columns)} WHERE true "
        "ON CONFLICT (environment_id, decision_sha256, kind) DO NOTHING "
        "RETURNING environment_id, decision_sha256, kind"
    )
    for places in chunks(sorted(grades), _IDS):
        rows = [{name: getattr(grades[place].row, name) for name in columns} for place in places]
        with connection.cursor() as cursor:
            cursor.execute(statement, [encode([row | {"at": stored(row["at"])} for row in rows])])
            fresh = cursor.fetchall()
        for place in fresh:
            yield from grades[place].changes


def prune(now: datetime | None = None) -> dict[str, int]:
    """Delete rows past their retention, a few thousand at a time so that no lock is held for long."""
    now = now or clock.now()
    kept = timedelta(days=settings.OUTCOME_RETENTION_DAYS)
    totals_kept = timedelta(days=settings.TOTALS_RETENTION_DAYS)
    limits: list[tuple[type[Model], str, datetime]] = [
        (OutcomeBucket, "minute", now - kept),
        (ArmTotals, "minute", now - totals_kept),
        (Feedback, "at", now - totals_kept),
        (AcceptedBatch, "at", now - BATCHES_KEPT),
        (SampledInput, "at", now - SAMPLES_KEPT),
    ]
    return {model.__name__: sum(_deleted(model, column, limit)) for model, column, limit in limits}


def _deleted(model: type[Model], column: str, limit: datetime) -> Iterator[int]:
    rows = model._default_manager.filter(**{f"{column}__lt": limit})
    while pks := list(rows.values_list("pk", flat=True)[:5_000]):
        yield model._default_manager.filter(pk__in=pks).delete()[0]
