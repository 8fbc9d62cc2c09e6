"""Reads the arms' minutes into what the engine looks at. Reads only; `reconcile` keeps and decides.

Money is in nano-USD; minutes are Unix minutes as the routers stamped them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from django.db import connection
from django.db.models import Q, Sum

from controlplane.core.bulk import chunks, flat, places, stored
from pointsman.reporting.histogram import Histogram
from policies_app.models import Workload
from rollout_app.engine.calibration import calibrate
from rollout_app.engine.evidence import (
    ArmSums,
    Group,
    MinuteRow,
    MirrorSums,
    Rehearsed,
    ShadowSums,
    Stage,
    Telemetry,
    with_graded_costs,
)
from rollout_app.engine.reference import Reference
from rollout_app.engine.windows import merge_groups
from rollout_app.models import ArmTotals, Rollout

REFERENCE_DAYS = (
    7  # how far back the baseline is measured: a whole week has every hour and every weekday once
)

# What `ArmSums` is made of.
_FIGURES = (
    "tasks", "successes", "failures", "errors", "escalations", "fallbacks", "retries", "cost_sum",
    "capped_sum", "capped_sum_sq", "capped_on_success", "quality_n", "quality_sum", "quality_sum_sq",
    "cost_histogram", "latency_histogram",
)  # fmt: skip
_MAPS = ("groups", "shadow", "mirror")
_HEALTH = ("tasks", "successes", "failures", "errors", "escalations", "fallbacks", "retries")
NO_LIMIT = 60 * 24 * 365 * 200  # a Unix minute that no outcome reaches (in 2170)
_ROWS = 1_000  # of one statement; SQLite takes 32,766 parameters
_TABLE = ArmTotals._meta.db_table


def reference(rollout: Rollout, now: datetime) -> Reference:
    """The baseline as its last days were, this rollout's own baseline arm included."""
    rows = ArmTotals.objects.filter(
        environment=rollout.environment_id,
        workload=rollout.workload_id,
        version=rollout.baseline.number,
        minute__gte=now - timedelta(days=REFERENCE_DAYS),
    ).filter(
        Q(arm="baseline") | ~Q(rollout=str(rollout.pk))
    )  # it was a candidate once, and became the baseline
    arm, latency, cost, groups = ArmSums(), Histogram(), Histogram(), dict[int, Group]()
    for row in rows.values(*_FIGURES, "groups").iterator():
        arm += arm_sums(row)
        latency.merge(histogram(row["latency_histogram"]))
        cost.merge(histogram(row["cost_histogram"]))
        groups = merge_groups((groups, hash_groups(row["groups"])))
    return calibrate(
        arm,
        latency=latency,
        cost=cost,
        groups=groups or None,
        unit_is_request=rollout.workload.unit == Workload.Unit.REQUEST,
    )


class MinuteRange(NamedTuple):
    """The minutes of one stage of a rollout to read: from `first` up to, not including, `before`."""

    rollout: str
    stage: int
    first: int
    before: int


@dataclass(frozen=True, slots=True)
class MinuteQuery:
    """How a rollout's minutes are read: tails by its reference's edges, hash groups where units are sticky."""

    reference: Reference
    sticky: bool
    ranges: tuple[MinuteRange, ...]


def minute_rows(queries: Sequence[MinuteQuery]) -> dict[str, list[MinuteRow]]:
    """By rollout, the minutes of its ranges in order, both arms side by side."""
    by_name = {query.ranges[0].rollout: query for query in queries}
    minutes: dict[str, dict[tuple[int, int], _MinuteInProgress]] = {name: {} for name in by_name}
    names = ("arm", "minute", *_FIGURES, *_MAPS)
    ranges = [window for query in queries for window in query.ranges]
    for rollout, stage, *values in _select_ranges(ranges, ", ".join(f"t.{name}" for name in names)):
        row = dict(zip(names, values, strict=True))
        key = (stage, minute_of(stored_moment(row["minute"])))
        minutes[rollout].setdefault(key, _MinuteInProgress()).add(row, by_name[rollout])
    return {
        name: [minute.row(*key) for key, minute in sorted(found.items())] for name, found in minutes.items()
    }


def all_minutes(rollout: Rollout, reference: Reference, before: int = NO_LIMIT) -> list[MinuteRow]:
    """Every minute of one rollout up to, not including, `before`."""
    name, sticky = str(rollout.pk), rollout.workload.unit != Workload.Unit.REQUEST
    ranges = tuple(MinuteRange(name, stage, 0, before) for stage in range(len(rollout.stages)))
    return minute_rows([MinuteQuery(reference, sticky, ranges)])[name]


@dataclass(slots=True)
class _MinuteInProgress:
    """One minute of one stage, being put together from its arms' rows."""

    arms: dict[str, ArmSums] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    rehearsed: Rehearsed | None = None

    def add(self, row: Mapping[str, Any], query: MinuteQuery) -> None:
        arm, sums = row["arm"], arm_sums(row, query.reference)
        self.arms[arm] = self.arms[arm] + sums if arm in self.arms else sums
        if query.sticky and arm == "baseline":
            self.groups = merge_groups((self.groups, hash_groups(msgspec.json.decode(row["groups"]))))
        if row["shadow"] != "{}" or row["mirror"] != "{}":
            shadow, mirror = _SHADOW.decode(row["shadow"]), _MIRROR.decode(row["mirror"])
            self.rehearsed = (self.rehearsed or Rehearsed()) + Rehearsed(shadow, mirror)

    def row(self, stage: int, minute: int) -> MinuteRow:
        candidate, baseline = self.arms.get("candidate", _NONE), self.arms.get("baseline", _NONE)
        return MinuteRow(stage, minute, candidate, baseline, self.groups, self.rehearsed)


_NONE = ArmSums()
_SHADOW, _MIRROR = msgspec.json.Decoder(ShadowSums), msgspec.json.Decoder(MirrorSums)  # routes are left out


def baseline_sums(ranges: Sequence[MinuteRange]) -> dict[str, ArmSums]:
    """By rollout, the baseline arm's counts over its ranges; no costs and no tails."""
    sums = ", ".join(f"SUM(t.{name})" for name in _HEALTH)
    found: dict[str, ArmSums] = {}
    for rollout, _, *counts in _select_ranges(
        ranges, sums, "AND t.arm = 'baseline' GROUP BY v.column1, v.column2"
    ):
        counted = ArmSums.from_health(map(int, counts))
        found[rollout] = found[rollout] + counted if rollout in found else counted
    return found


def _select_ranges(ranges: Sequence[MinuteRange], columns: str, tail: str = "") -> Iterator[tuple[Any, ...]]:
    """(rollout, stage, *columns) of what lies in the ranges. Each is one range of the index by stage."""
    for some in chunks(ranges, _ROWS):
        rows = [
            (name, stage, stored(moment(first)), stored(moment(before)))
            for name, stage, first, before in some
        ]
        # Names of our own table and columns only; values are bound.
        statement = (
            # The limit tells SQLite how few ranges there are: it expects a million, and would read the whole index
            # into a Bloom filter first.
            f"SELECT v.column1, v.column2, {columns} "  # noqa: S608
            f"FROM (SELECT * FROM (VALUES {places(rows)}) AS w LIMIT {len(rows)}) AS v "
            # A cross join: it would read the whole table and seek in the ranges.
            f"CROSS JOIN {_TABLE} t WHERE t.rollout = v.column1 AND t.stage = v.column2 AND NOT (t.rollout = '') "
            f"AND t.minute >= v.column3 AND t.minute < v.column4 {tail}"
        )
        with connection.cursor() as cursor:
            cursor.execute(statement, flat(rows))
            yield from cursor.fetchall()


def telemetry(rollout: str, before: int, received_at: datetime | None) -> Telemetry:
    """Candidate tasks older than the lag, and how many of the candidate's tasks were ever graded: all read."""
    sums = ArmTotals.objects.filter(rollout=rollout, arm="candidate").aggregate(
        due=Sum("tasks", filter=Q(minute__lt=moment(before))), good=Sum("successes"), bad=Sum("failures")
    )
    return Telemetry(
        candidate_decisions=sums["due"] or 0,
        candidate_outcomes=(sums["good"] or 0) + (sums["bad"] or 0),
        newest_outcome_at=received_at,
    )


def shadow_and_mirror(rollout: Rollout) -> tuple[ShadowSums, MirrorSums]:
    """What was decided and not enforced, and what ran on both arms, in the rollout's shadow stage."""
    shadows, mirrors = [], []
    if Stage.from_dict(rollout.stages[0]).mode == "shadow":
        rows = ArmTotals.objects.filter(rollout=str(rollout.pk), stage=0)
        for row in rows.values("shadow", "mirror").iterator():
            shadows.append(row["shadow"] or {})
            mirrors.append(row["mirror"] or {})
    candidate, baseline = _routes(shadow.get("routes") or {} for shadow in shadows)
    names = ("decisions", "agreed", "evaluation_errors", "candidate_cost_nusd", "baseline_cost_nusd")
    ends = (
        "n", "both", "only_candidate", "only_baseline", "neither", "candidate_cost_nusd",
        "baseline_cost_nusd",
    )  # fmt: skip
    return (
        ShadowSums(**_added(shadows, names), candidate_routes=candidate, baseline_routes=baseline),
        MirrorSums(**_added(mirrors, ends)),
    )


def _added(parts: list[Mapping[str, Any]], names: Iterable[str]) -> dict[str, int]:
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _routes(parts: Iterator[Mapping[str, int]]) -> tuple[dict[str, int], dict[str, int]]:
    """Decisions per model, of the candidate and of the baseline, from `served>candidate` counts."""
    candidate: dict[str, int] = {}
    baseline: dict[str, int] = {}
    for part in parts:
        for route, count in part.items():
            served, _, other = route.partition(">")
            baseline[served] = baseline.get(served, 0) + count
            candidate[other] = candidate.get(other, 0) + count
    return candidate, baseline


def arm_sums(row: Mapping[str, Any], reference: Reference | None = None) -> ArmSums:
    """One row as the guardrails read it. Tails need the reference's edges; without them they are 0 of 0."""
    latency_n, latency_above = _count_above(
        row["latency_histogram"], reference.latency_edge if reference else None
    )
    cost_n, cost_above = _count_above(row["cost_histogram"], reference.cost_edge if reference else None)
    sums = ArmSums(
        tasks=row["tasks"],
        successes=row["successes"],
        failures=row["failures"],
        errors=row["errors"],
        escalations=row["escalations"],
        fallbacks=row["fallbacks"],
        retries=row["retries"],
        latency_n=latency_n,
        latency_above=latency_above,
        cost_n=cost_n,
        cost_above=cost_above,
        cost=row["capped_sum"],
        cost_sq=row["capped_sum_sq"],
        cost_on_success=row["capped_on_success"],
        cost_uncapped=row["cost_sum"],
        quality_n=row["quality_n"],
        quality=row["quality_sum"],
        quality_sq=row["quality_sum_sq"],
    )
    return with_graded_costs(sums)


class _StoredHistogram(msgspec.Struct):
    """A histogram as it is stored; `{}` is an empty one."""

    zero: int = 0
    counts: dict[int, int] = {}


_HISTOGRAM = msgspec.json.Decoder(_StoredHistogram)


def _count_above(stored: str, edge: int | None) -> tuple[int, int]:
    """How many there are, and how many above the edge."""
    if edge is None:
        return 0, 0
    read = _HISTOGRAM.decode(stored)
    above = sum(count for bucket, count in read.counts.items() if bucket > edge)
    return read.zero + sum(read.counts.values()), above


def hash_groups(stored: Mapping[str, Any]) -> dict[int, Group]:
    """The 32 hash groups as stored: {"7": [tasks, failures]}."""
    return {int(key): Group(tasks, failures) for key, (tasks, failures) in stored.items()}


def histogram(stored: Mapping[str, Any]) -> Histogram:
    """A stored histogram; `{}` is an empty one."""
    return Histogram(
        zero=stored.get("zero", 0),
        counts={int(bucket): count for bucket, count in (stored.get("counts") or {}).items()},
    )


def minute_of(at: datetime) -> int:
    return int(at.timestamp() // 60)


def moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def stored_moment(value: Any) -> datetime:
    """A time as a cursor returns it: SQLite keeps text in UTC."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
