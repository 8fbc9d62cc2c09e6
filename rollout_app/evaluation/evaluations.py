"""Load rollouts for evaluation and store the results: hundreds of rollouts in a few statements.

This module only talks to the database: `judging` judges, `reconcile` decides and acts. Each read covers only what is
new since the last evaluation, so its cost does not grow with the rollout's age. Many rollouts share a transaction,
but each is stored or dropped on its own by a compare-and-swap on its version and its number of evaluations.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import CharField, Func, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.functions import Cast

from controlplane.core.bulk import chunks, column_type, stored, table_of
from policies_app.models import Environment, Workload
from rollout_app.engine.accumulator import READABLE, Accumulator
from rollout_app.engine.decide import Decision, Hold
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import State
from rollout_app.models import ArmTotals, Rollout, Transition, VerdictRecord

_ROWS = 1_000  # rows per statement; SQLite allows 32,766 parameters


class _DashedId(Func):
    """A rollout's id with dashes, as in the outcomes. SQLite stores ids without."""

    template = "%(expressions)s::text"
    output_field = CharField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        cuts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
        return " || '-' || ".join(f"substr({sql}, {at}, {n})" for at, n in cuts), [*params] * len(cuts)


def _newest(field: str, *order: str) -> Subquery:
    rows = ArmTotals.objects.exclude(rollout="").filter(rollout=_DashedId(OuterRef("pk")))
    return Subquery(rows.order_by(*order).values(field)[:1])


# --- load ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Subject:
    """A rollout as the evaluation loaded it. JSON columns stay text until they are needed."""

    pk: UUID
    environment_id: int
    environment: Environment
    state: State
    stage: int
    version: int
    evaluations: int
    digest: str  # of the candidate
    lag_s: int
    sticky: bool
    stage_entered_at: datetime | None
    paused_at: datetime | None
    paused_s: float
    evidence: str
    reference: str
    stages: str
    guardrails: str
    revision: int | None  # the snapshot revision of the last transition
    newest_minute: datetime | None  # of the newest stage with outcomes, as stamped by the routers
    received_at: datetime | None  # when the newest outcomes arrived

    @property
    def name(self) -> str:
        return str(self.pk)

    def progress(self) -> "Progress":
        """Return how far the stored sums go. Sums in an unknown format are ignored, and all minutes are read again."""
        head = _SUMS_HEAD.decode(self.evidence)
        reference = Reference.from_dict(msgspec.json.decode(self.reference) or {"outcomes": 0})
        if head.format not in READABLE:
            return Progress(reference, {}, {}, (), has_sums=False)
        return Progress(reference, head.cursors, head.results, head.forecasts, has_sums=True)

    def accumulator(self, progress: "Progress") -> Accumulator:
        """Return the stored sums, or empty ones if there are none."""
        if progress.has_sums:
            return Accumulator.from_dict(msgspec.json.decode(self.evidence))
        guardrails = map(Guardrail.from_dict, msgspec.json.decode(self.guardrails))
        return Accumulator.open(guardrails, self.plan, progress.reference)

    @property
    def plan(self) -> tuple[Stage, ...]:
        return _plan(self.stages)


@lru_cache(maxsize=1_000)
def _plan(stages: str) -> tuple[Stage, ...]:
    """Return the stages of a stored plan. Most rollouts use one of a few plans."""
    return tuple(map(Stage.from_dict, msgspec.json.decode(stages)))


class _SumsHead(msgspec.Struct):
    """The part of the stored sums that shows how far they go. A batch holds hundreds and decodes the rest one
    at a time.
    """

    format: int = 0
    cursors: dict[int, int] = {}
    results: dict[str, str] = {}
    forecasts: list[Any] = []


_SUMS_HEAD = msgspec.json.Decoder(_SumsHead)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout's sums go, and the reference that they use."""

    reference: Reference
    cursors: Mapping[int, int]  # stage: first minute that is not judged yet
    results: Mapping[str, str]  # guardrail: its verdict at the last evaluation
    forecasts: Sequence[Any]  # as `outlooks` stores them
    has_sums: bool


def load(ids: Iterable[UUID | str]) -> list[Subject]:
    """Load the rollouts in one query, and their environments in another."""
    revision = Transition.objects.filter(rollout=OuterRef("pk"), revision__isnull=False)
    texts = {f"{name}_text": Cast(name, TextField()) for name in ("evidence", "reference", "stages")}
    rows = list(
        Rollout.objects.filter(pk__in=list(ids))
        .order_by("pk")
        .annotate(
            **texts,
            guardrails_text=Cast("guardrails", TextField()),
            revision=Subquery(revision.order_by("-sequence").values("revision")[:1]),
            newest_minute=_newest("minute", "-stage", "-minute"),
            received=_newest("received_at", "-received_at"),
        )
        .values_list(
            "pk", "environment_id", "state", "stage", "version", "evaluations", "candidate__digest",
            "workload__outcome_lag_s", "workload__unit", "stage_entered_at", "paused_at", "paused_s",
            "evidence_text", "reference_text", "stages_text", "guardrails_text", "revision",
            "newest_minute", "received",
        )
    )  # fmt: skip
    environments = Environment.objects.in_bulk({row[1] for row in rows})
    return [
        Subject(
            pk, environment, environments[environment], State(state), stage, version, evaluations, digest, lag_s,
            unit != Workload.Unit.REQUEST, *rest,
        )
        for pk, environment, state, stage, version, evaluations, digest, lag_s, unit, *rest in rows
    ]  # fmt: skip


def whole_rollout(pk: UUID) -> Rollout:
    """Return the rollout with the relations that an action needs."""
    return Rollout.objects.select_related("environment", "workload", "baseline", "candidate").get(pk=pk)


def could_move(now: datetime) -> QuerySet[Rollout, tuple[UUID, datetime | None, datetime | None, Any]]:
    """Return (id, wake time, last evaluation, newest arrival) of every rollout that can move."""
    due = Rollout.objects.filter(
        Q(state__in=[State.RUNNING, State.PAUSED, State.ROLLING_BACK])
        | Q(state=State.SCHEDULED, scheduled_for__lte=now)
    )
    arrivals = due.annotate(received=_newest("received_at", "-received_at"))
    return arrivals.order_by("pk").values_list("pk", "wake_at", "evaluated_at", "received")


# --- store ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Evaluation:
    """One rollout's evaluation: the decision, and the results to store, already serialised.

    A batch holds hundreds of these. Kept as objects, their sums would cost a fifth of the time in garbage collection.
    """

    subject: Subject
    decision: Decision
    wake_at: datetime
    sums: str | None = None  # JSON; None: no window closed, so there is nothing to store
    # (guardrail, result, JSON); empty if the results are unchanged
    verdicts: list[tuple[str, str, str]] = field(default_factory=list)
    reference: dict[str, Any] | None = None  # set if this evaluation measured it
    evidence: dict[str, Any] | None = None  # for the audit entry; None for a hold
    broken: tuple[str, ...] = ()  # parts of the evidence that could not be computed

    @property
    def is_new(self) -> bool:
        return self.sums is not None

    @property
    def number(self) -> int:
        return self.subject.evaluations + self.is_new


def store(evaluations: Sequence[Evaluation], now: datetime) -> set[UUID]:
    """Store the evaluations in one transaction. Return the rollouts that neither moved nor were evaluated in the
    meantime.

    A locked row is being moved: its evaluation is dropped instead of waiting.
    """
    if not evaluations:
        return set()
    by_id = {evaluation.subject.pk: evaluation for evaluation in evaluations}
    with transaction.atomic():
        locked = Rollout.objects.select_for_update(skip_locked=True, no_key=True).filter(pk__in=by_id)
        rows = locked.order_by("pk").values_list("pk", "version", "evaluations")
        won = [by_id[pk] for pk, version, count in rows if _is_unchanged(by_id[pk], version, count)]
        by_columns: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for evaluation in won:
            if values := _changed_columns(evaluation, now):
                by_columns.setdefault(tuple(values), []).append((evaluation.subject.pk, *values.values()))
        for columns, changed in by_columns.items():
            _update_rollouts(columns, changed)
        _insert_verdicts(won, now)
    return {evaluation.subject.pk for evaluation in won}


def _is_unchanged(evaluation: Evaluation, version: int, count: int) -> bool:
    subject = evaluation.subject
    return version == subject.version and (count == subject.evaluations or not evaluation.is_new)


def _changed_columns(evaluation: Evaluation, now: datetime) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if evaluation.is_new:
        values = {"evidence": evaluation.sums, "evaluations": evaluation.number, "evaluated_at": stored(now)}
    if evaluation.reference is not None:
        values["reference"] = as_json(evaluation.reference)
    if isinstance(evaluation.decision, Hold):
        reason = evaluation.decision.reason
        values |= {
            "hold_code": reason.code,
            "hold_sentence": reason.sentence,
            "outlook": evaluation.decision.outlook,
        }
        values |= {"evaluated_at": stored(now), "wake_at": stored(evaluation.wake_at)}
    return values


def _update_rollouts(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Update these columns of many rollouts. Each row begins with the rollout's id."""
    table, key = Rollout._meta.db_table, Rollout._meta.pk
    types = [column_type(Rollout, name) for name in ("id", *columns)]
    sets = ", ".join(f"{name} = v.column{at}" for at, name in enumerate(columns, 2))
    for some in chunks(rows, _ROWS):
        values = [(key.get_db_prep_value(pk, connection), *rest) for pk, *rest in some]
        source, parameters = table_of(values, types)
        # Only our own table and column names are formatted in; values are bound.
        statement = f"UPDATE {table} SET {sets} FROM {source} WHERE {table}.id = v.column1"  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)


def _insert_verdicts(evaluations: Sequence[Evaluation], now: datetime) -> None:
    key, at = Rollout._meta.pk, stored(now)
    rows = [
        (
            key.get_db_prep_value(evaluation.subject.pk, connection),
            evaluation.subject.stage,
            evaluation.number,
            *verdict,
            at,
        )
        for evaluation in evaluations
        for verdict in evaluation.verdicts
    ]
    columns = ("rollout_id", "stage", "evaluation", "guardrail", "verdict", "data", "at")
    types = [column_type(VerdictRecord, name) for name in columns]
    for some in chunks(rows, _ROWS):
        source, parameters = table_of(some, types)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {VerdictRecord._meta.db_table} ({', '.join(columns)}) "  # noqa: S608 — our own table
                f"SELECT * FROM {source}",
                parameters,
            )


def judged(rollout: Rollout) -> Judgement:
    """Return the current judgement: the sums of the last evaluation, judged for the next stage.

    Nothing follows the last stage, so it keeps the margins of the move that led to it.
    """
    try:
        accumulator = Accumulator.from_dict(rollout.evidence)
    except ValueError:  # nothing stored yet, or in another format
        guardrails, stages = (
            map(Guardrail.from_dict, rollout.guardrails),
            map(Stage.from_dict, rollout.stages),
        )
        accumulator = Accumulator.open(
            guardrails, stages, Reference.from_dict(rollout.reference or {"outcomes": 0})
        )
    return accumulator.judge(max(0, min(rollout.stage, len(rollout.stages) - 2)))


def as_json(value: Any) -> str:
    """Serialise quickly. Infinities become null, because JSON has none."""
    return msgspec.json.encode(value).decode()
