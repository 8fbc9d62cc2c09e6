"""What a look reads of its rollouts, and what it keeps: hundreds of rollouts in a few statements.

`reconcile` looks, decides and acts; here is only the traffic with the database. Each read is bounded by what
is new since the last look, whatever the rollout's age. Each rollout is kept or not by itself: a
compare-and-swap on its version and number of looks, though many share a transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import CharField, Func, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.functions import Cast

from controlplane.core.bulk import chunks, flat, places, stored
from policies_app.models import Environment, Workload
from rollout_app.engine.accumulator import FORMAT, Accumulator, Judgement
from rollout_app.engine.decide import Decision, Hold
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import State
from rollout_app.models import ArmTotals, Rollout, Transition, Verdict

_ROWS = 1_000  # of one statement; SQLite takes 32,766 parameters


class _Name(Func):
    """A rollout's id as the outcomes carry it: with dashes, which SQLite keeps ids without."""

    template = "%(expressions)s::text"
    output_field = CharField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        cuts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
        return " || '-' || ".join(f"substr({sql}, {at}, {n})" for at, n in cuts), [*params] * len(cuts)


def _newest(field: str, *order: str) -> Subquery:
    rows = ArmTotals.objects.exclude(rollout="").filter(rollout=_Name(OuterRef("pk")))
    return Subquery(rows.order_by(*order).values(field)[:1])


# --- read ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Subject:
    """A rollout as a look found it. JSON is text until somebody asks for it."""

    pk: UUID
    environment_id: int
    environment: Environment
    state: State
    stage: int
    version: int
    looks: int
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
    revision: int | None  # that the last transition made
    newest_minute: datetime | None  # stamped by the routers, of the newest stage that was heard of
    received_at: datetime | None  # when the newest minute came in

    @property
    def name(self) -> str:
        return str(self.pk)

    def kept(self) -> "Kept":
        """What was taken in so far. Of an engine with another format: nothing, and all is read again."""
        head = _HEAD.decode(self.evidence)
        reference = Reference.from_dict(msgspec.json.decode(self.reference) or {"outcomes": 0})
        if head.format != FORMAT:
            return Kept(reference, {}, {}, has_sums=False)
        return Kept(reference, head.cursors, head.results, has_sums=True)

    def open(self, kept: "Kept") -> Accumulator:
        if kept.has_sums:
            return Accumulator.from_dict(msgspec.json.decode(self.evidence))
        guardrails = map(Guardrail.from_dict, msgspec.json.decode(self.guardrails))
        return Accumulator.open(guardrails, map(Stage.from_dict, self.plan), kept.reference)

    @property
    def plan(self) -> list[dict[str, Any]]:
        stages: list[dict[str, Any]] = msgspec.json.decode(self.stages)
        return stages


class _Head(msgspec.Struct):
    """Of the sums, only what says how far they go: a batch holds hundreds, and opens one at a time."""

    format: int = 0
    cursors: dict[int, int] = {}
    results: dict[str, str] = {}


_HEAD = msgspec.json.Decoder(_Head)


@dataclass(frozen=True, slots=True)
class Kept:
    """How far the sums go: (stage: first minute not judged yet), and what they are measured from."""

    reference: Reference
    cursors: Mapping[int, int]
    results: Mapping[str, str]  # guardrail: its verdict at the last look
    has_sums: bool


def read(ids: Iterable[UUID | str]) -> list[Subject]:
    """The rollouts, in one query and one for their environments."""
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
            "pk", "environment_id", "state", "stage", "version", "looks", "candidate__digest",
            "workload__outcome_lag_s", "workload__unit", "stage_entered_at", "paused_at", "paused_s",
            "evidence_text", "reference_text", "stages_text", "guardrails_text", "revision",
            "newest_minute", "received",
        )
    )  # fmt: skip
    environments = Environment.objects.in_bulk({row[1] for row in rows})
    return [
        Subject(
            pk, environment, environments[environment], State(state), stage, version, looks, digest, lag_s,
            unit != Workload.Unit.REQUEST, *rest,
        )
        for pk, environment, state, stage, version, looks, digest, lag_s, unit, *rest in rows
    ]  # fmt: skip


def could_move(now: datetime) -> QuerySet[Rollout, tuple[UUID, datetime | None, datetime | None, Any]]:
    """(id, when to look though nothing came in, last look, newest arrival) of every rollout under way."""
    due = Rollout.objects.filter(
        Q(state__in=[State.RUNNING, State.PAUSED, State.ROLLING_BACK])
        | Q(state=State.SCHEDULED, scheduled_for__lte=now)
    )
    arrivals = due.annotate(received=_newest("received_at", "-received_at"))
    return arrivals.order_by("pk").values_list("pk", "wake_at", "looked_at", "received")


# --- keep ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Look:
    """One rollout's look: what is to be done, and what is to be kept, as text already.

    A batch is hundreds of these, and as objects their sums would keep the garbage collector busy for a fifth
    of the time.
    """

    subject: Subject
    decision: Decision
    wake_at: datetime
    sums: str | None = None  # JSON; None: no stratum closed, and there is nothing to keep
    # guardrail, result, JSON; none where the results are what they were
    verdicts: list[tuple[str, str, str]] = field(default_factory=list)
    reference: dict[str, Any] | None = None  # if it was frozen by this look
    evidence: dict[str, Any] | None = None  # for the audit entry of what is not a hold

    @property
    def is_new(self) -> bool:
        return self.sums is not None

    @property
    def number(self) -> int:
        return self.subject.looks + self.is_new


def keep(looks: Sequence[Look], now: datetime) -> set[UUID]:
    """Keep the looks in one transaction; returns the rollouts that had not moved and were not looked at since.

    Who holds a row just now is moving it: its look is dropped, and nobody waits for anybody.
    """
    if not looks:
        return set()
    by_id = {look.subject.pk: look for look in looks}
    with transaction.atomic():
        locked = Rollout.objects.select_for_update(skip_locked=True, no_key=True).filter(pk__in=by_id)
        rows = locked.order_by("pk").values_list("pk", "version", "looks")
        won = [by_id[pk] for pk, version, count in rows if _is_as_seen(by_id[pk], version, count)]
        by_columns: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for look in won:
            if values := _values(look, now):
                by_columns.setdefault(tuple(values), []).append((look.subject.pk, *values.values()))
        for columns, changed in by_columns.items():
            _write(columns, changed)
        _insert_verdicts([look for look in won if look.verdicts], now)
    return {look.subject.pk for look in won}


def _is_as_seen(look: Look, version: int, count: int) -> bool:
    return version == look.subject.version and (count == look.subject.looks or not look.is_new)


def _values(look: Look, now: datetime) -> dict[str, Any]:
    """The columns that the look changes."""
    values: dict[str, Any] = {}
    if look.is_new:
        values = {"evidence": look.sums, "looks": look.number, "looked_at": stored(now)}
    if look.reference is not None:
        values["reference"] = as_json(look.reference)
    if isinstance(look.decision, Hold):
        reason = look.decision.reason
        values |= {
            "hold_code": reason.code,
            "hold_sentence": reason.sentence,
            "outlook": look.decision.outlook,
        }
        values |= {"looked_at": stored(now), "wake_at": stored(look.wake_at)}
    return values


def _write(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Set the columns of each rollout by its id, which comes first in its row."""
    table, key = Rollout._meta.db_table, Rollout._meta.pk
    json = {"reference"} if connection.vendor == "postgresql" else set()
    sets = ", ".join(
        f"{name} = v.column{at}{'::jsonb' if name in json else ''}" for at, name in enumerate(columns, 2)
    )
    for some in chunks(rows, _ROWS):
        values = [(key.get_db_prep_value(pk, connection), *rest) for pk, *rest in some]
        # Names of our own table and columns only; values are bound.
        statement = (
            f"UPDATE {table} SET {sets} FROM (VALUES {places(values)}) AS v WHERE {table}.id = v.column1"  # noqa: S608
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, flat(values))


def _insert_verdicts(looks: Sequence[Look], now: datetime) -> None:
    key, at = Rollout._meta.pk, stored(now)
    rows = [
        (
            key.get_db_prep_value(look.subject.pk, connection), look.subject.stage, look.number, *verdict, at,
        )
        for look in looks
        for verdict in look.verdicts
    ]  # fmt: skip
    for some in chunks(rows, _ROWS):
        statement = (
            f"INSERT INTO {Verdict._meta.db_table} "  # noqa: S608 — our own table; values are bound
            f"(rollout_id, stage, look, guardrail, verdict, data, at) VALUES {places(some)}"
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, flat(some))


def judged(rollout: Rollout) -> Judgement:
    """What the evidence says now: the sums of the last look, judged for the stage that comes next."""
    try:
        ledger = Accumulator.from_dict(rollout.evidence)
    except ValueError:  # nothing was kept yet, or by an engine with another format
        guardrails, stages = (
            map(Guardrail.from_dict, rollout.guardrails),
            map(Stage.from_dict, rollout.stages),
        )
        ledger = Accumulator.open(
            guardrails, stages, Reference.from_dict(rollout.reference or {"outcomes": 0})
        )
    return ledger.judge(rollout.stage)


def as_json(value: Any) -> str:
    """As text, fast; infinities become null: JSON has none."""
    return msgspec.json.encode(value).decode()
