"""Reads the arms' minutes into what the engine looks at. Reads only; `reconcile` keeps and decides.

Money is in nano-USD; minutes are Unix minutes as the routers stamped them.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Max, Q, QuerySet, Sum

from pointsman.histogram import Histogram
from policies_app.models import Workload
from rollout_app.evidence import (
    ArmSums,
    Group,
    MinuteRow,
    MirrorSums,
    Reference,
    ShadowSums,
    Stage,
    Telemetry,
)
from rollout_app.models import ArmTotals, Rollout
from rollout_app.reference import freeze
from rollout_app.strata import merge_groups

REFERENCE_DAYS = (
    7  # how far back the baseline is measured: a whole week has every hour and every weekday once
)
_HOUR = timedelta(hours=1)

# What `ArmSums` is made of. The wide columns (groups, routes) are left in the database.
_JUDGED = (
    "stage", "arm", "minute", "tasks", "successes", "failures", "errors", "escalations", "fallbacks",
    "retries", "capped_sum", "capped_sum_sq", "capped_on_success", "quality_n", "quality_sum",
    "quality_sum_sq", "cost_histogram", "latency_histogram",
)  # fmt: skip

_HEALTH = ("tasks", "successes", "failures", "errors", "escalations", "fallbacks", "retries")


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
    for row in rows.values(*_JUDGED, "groups").iterator():
        arm += arm_sums(row, None)
        latency.merge(histogram(row["latency_histogram"]))
        cost.merge(histogram(row["cost_histogram"]))
        groups = merge_groups((groups, hash_groups(row["groups"])))
    return freeze(
        arm,
        latency=latency,
        cost=cost,
        groups=groups or None,
        unit_is_request=rollout.workload.unit == Workload.Unit.REQUEST,
    )


def minute_rows(
    rollout: Rollout, reference: Reference, cursors: Mapping[int, int], before: int
) -> list[MinuteRow]:
    """The minutes before `before` that no window has taken yet, both arms side by side."""
    unjudged = Q(stage__gte=0)
    for stage, cursor in cursors.items():
        unjudged &= ~Q(stage=stage) | Q(minute__gte=moment(cursor))
    sticky = rollout.workload.unit != Workload.Unit.REQUEST
    columns = (*_JUDGED, "groups") if sticky else _JUDGED
    rows = of(rollout).filter(unjudged, minute__lt=moment(before)).values(*columns)
    minutes: dict[tuple[int, int], dict[str, ArmSums]] = {}
    groups: dict[tuple[int, int], dict[int, Group]] = {}
    for row in rows.iterator():
        key = (row["stage"], minute_of(row["minute"]))
        arms = minutes.setdefault(key, {})
        arms[row["arm"]] = arms.get(row["arm"], ArmSums()) + arm_sums(row, reference)
        if sticky and row["arm"] == "baseline":
            groups[key] = merge_groups((groups.get(key, {}), _groups(row["groups"])))
    none = ArmSums()
    return [
        MinuteRow(*key, arms.get("candidate", none), arms.get("baseline", none), groups.get(key, {}))
        for key, arms in sorted(minutes.items())
    ]


def _groups(stored: Mapping[str, Any]) -> dict[int, Group]:
    return {int(key): Group(*counts) for key, counts in stored.items()}


def of(rollout: Rollout) -> QuerySet[ArmTotals]:
    return ArmTotals.objects.filter(
        environment=rollout.environment_id, workload=rollout.workload_id, rollout=str(rollout.pk)
    )


def newest(rollout: Rollout) -> tuple[datetime | None, datetime | None]:
    """(newest stamped minute, when the last new minute came in) of the rollout, or None before its first."""
    found = of(rollout).aggregate(minute=Max("minute"), received=Max("received_at"))
    return found["minute"], found["received"]


def telemetry(rollout: Rollout, before: int, received_at: datetime | None) -> Telemetry:
    """Candidate tasks older than the lag, and how many of the candidate's tasks were ever graded."""
    sums = (
        of(rollout)
        .filter(arm="candidate")
        .aggregate(
            due=Sum("tasks", filter=Q(minute__lt=moment(before))), good=Sum("successes"), bad=Sum("failures")
        )
    )
    return Telemetry(
        candidate_decisions=sums["due"] or 0,
        candidate_outcomes=(sums["good"] or 0) + (sums["bad"] or 0),
        newest_outcome_at=received_at,
    )


def baseline_last_hour(rollout: Rollout, newest_minute: datetime) -> ArmSums:
    """The baseline arm's counts over the hour up to the newest stamped minute; no costs and no tails."""
    rows = of(rollout).filter(arm="baseline", minute__gt=newest_minute - _HOUR)
    sums = rows.aggregate(**{f"{name}_": Sum(name) for name in _HEALTH})
    return ArmSums(**{name: sums[f"{name}_"] or 0 for name in _HEALTH})


def shadow_and_mirror(rollout: Rollout) -> tuple[ShadowSums, MirrorSums]:
    """What was decided and not enforced, and what ran on both arms, in the rollout's shadow stage."""
    shadows, mirrors = [], []
    if Stage.from_dict(rollout.stages[0]).mode == "shadow":
        for row in of(rollout).filter(stage=0).values("shadow", "mirror").iterator():
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


def arm_sums(row: Mapping[str, Any], reference: Reference | None) -> ArmSums:
    """One row as the guardrails read it. Tails need the reference's edges; without them they are 0 of 0."""
    latency_n, latency_above = _tail(row["latency_histogram"], reference.latency_edge if reference else None)
    cost_n, cost_above = _tail(row["cost_histogram"], reference.cost_edge if reference else None)
    return ArmSums(
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
        quality_n=row["quality_n"],
        quality=row["quality_sum"],
        quality_sq=row["quality_sum_sq"],
    )


def _tail(stored: Mapping[str, Any], edge: int | None) -> tuple[int, int]:
    if edge is None:
        return 0, 0
    read = histogram(stored)
    return read.total, read.count_above(edge)


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
