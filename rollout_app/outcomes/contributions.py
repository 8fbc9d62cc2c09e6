"""Compute what a report adds to the sums. Pure.

The workload's success signal decides what grades a task: the router's record (`by_record`) or a kind of feedback.
With feedback, the router's record is ignored, and the task counts as ungraded until the feedback arrives.
"""

from collections.abc import Callable
from datetime import UTC

import msgspec

from rollout_app.outcomes.aggregate import (
    ARM_ONLY_NUMBERS,
    NUMBERS,
    SLICE,
    ArmContribution,
    ArmKey,
    Contribution,
    Counts,
    Details,
    Figures,
    Groups,
    RouteKey,
)
from rollout_app.outcomes.schemas import (
    ReportedBucket,
    ReportedCapped,
    ReportedCells,
    ReportedCost,
    ReportedCostSums,
    ReportedDecided,
    ReportedDiffering,
    ReportedEvent,
    ReportedGroup,
    ReportedHistogram,
    ReportedMirror,
    ReportedMoments,
    ReportedShadow,
)

_UNKNOWN_COSTS = (0,) * 8
_AT = {name: at for at, name in enumerate(NUMBERS)}
_SLICE_AT = {name: at for at, name in enumerate(SLICE)}


def of_bucket(key: RouteKey, bucket: ReportedBucket, *, by_record: bool, tracked: bool) -> Contribution:
    """Return what a bucket adds to its route. `tracked`: the router also counts its decisions."""
    if not by_record:
        _take_grades(bucket)
    return Contribution(key, _numbers(bucket, by_record, tracked), _details(bucket, by_record))


def _take_grades(bucket: ReportedBucket) -> None:
    """Make all tasks ungraded, because feedback grades them and not the router."""
    bucket.successes = bucket.failures = 0
    bucket.ungraded = bucket.tasks
    bucket.cost_nusd.sum_on_success = 0
    if bucket.cost_nusd.capped:
        bucket.cost_nusd.capped.sum_on_success = 0
    for group in bucket.groups.values():
        group.failures = 0


def _numbers(bucket: ReportedBucket, by_record: bool, tracked: bool) -> Figures:
    """Return the figures in the order of `NUMBERS`."""
    quality, confidence, cost, tasks = bucket.quality, bucket.confidence, bucket.cost_nusd, bucket.tasks
    capped = cost.capped or cost
    return [
        tasks, bucket.successes, bucket.failures, bucket.ungraded,
        bucket.errors, bucket.escalations, bucket.fallbacks, bucket.retries, bucket.attempts,
        quality.n, quality.sum, quality.sum_sq, confidence.n, confidence.sum, confidence.sum_sq,
        cost.n, cost.sum, cost.sum_sq, cost.sum_on_success,
        capped.sum, capped.sum_sq, capped.sum_on_success,
        *(_graded(cost, bucket) if by_record else _UNKNOWN_COSTS),
        tasks if bucket.differing is not None else 0, tasks if tracked else 0,
    ]  # fmt: skip


def _graded(cost: ReportedCostSums, of: ReportedBucket | ReportedDiffering) -> tuple[int | float, ...]:
    """Return n, successes, sums and capped sums over the tasks whose cost and grade are both known."""
    graded = cost.graded
    if graded is not None:
        capped = graded.capped or graded
        return (
            graded.n, graded.successes, graded.sum, graded.sum_sq, graded.sum_on_success,
            capped.sum, capped.sum_sq, capped.sum_on_success,
        )  # fmt: skip
    if cost.n != of.tasks or of.ungraded:
        return _UNKNOWN_COSTS  # the router did not say which costs belong to which grades
    capped_sums = cost.capped or cost
    return (
        cost.n, of.successes, cost.sum, cost.sum_sq, cost.sum_on_success,
        capped_sums.sum, capped_sums.sum_sq, capped_sums.sum_on_success,
    )  # fmt: skip


def _details(bucket: ReportedBucket, by_record: bool) -> Details:
    """Return the maps in the order of `DETAILS`; empty where nothing was reported."""
    cost, latency = bucket.cost_nusd.histogram, bucket.latency_ms
    shadow, mirror = bucket.shadow, bucket.mirror
    return (
        {"zero": cost.zero, "counts": cost.counts} if bucket.cost_nusd.n else {},
        {"zero": latency.zero, "counts": latency.counts} if latency.zero or latency.counts else {},
        bucket.groups,
        bucket.models,
        bucket.errors_by_kind,
        _shadow(shadow) if shadow.decisions or shadow.evaluation_errors else {},
        _mirror(mirror) if mirror.n or mirror.failed or mirror.braked else {},
        {pair: _slice(part, by_record) for pair, part in bucket.differing.items()}
        if bucket.differing
        else {},
    )


def _mirror(mirror: ReportedMirror) -> Counts:
    """Return the counts, with `failed` and `braked` only if not zero, which saves space."""
    counts = msgspec.structs.asdict(mirror)
    return {name: n for name, n in counts.items() if n or name not in ("failed", "braked")}


def _shadow(shadow: ReportedShadow) -> Counts:
    """Return the figures that the router reported.

    Of a router that does not report how many decisions it priced, a candidate's cost of 0 beside a baseline's that is
    above 0 is unknown. Then the baseline's is left out, too: otherwise the candidate would look cheap.
    """
    counts = {name: figure for name, figure in msgspec.structs.asdict(shadow).items() if figure is not None}
    if shadow.candidate_priced is None and not shadow.candidate_cost_nusd:
        counts["baseline_cost_nusd"] = 0
    return counts


def _slice(part: ReportedDiffering, by_record: bool) -> Figures:
    """Return the figures in the order of `SLICE`."""
    if not by_record:
        return [part.tasks, *(0,) * (len(SLICE) - 1)]
    n, good, full, _, _, cost, sq, paid = _graded(part.cost_nusd, part)
    return [part.tasks, part.successes, part.failures, n, good, cost, sq, paid, full]


def of_decided(key: ArmKey, decided: ReportedDecided) -> ArmContribution:
    """Return decision counts in the order of `ARM_ONLY_NUMBERS`."""
    says = decided.differing is not None
    return ArmContribution(key, [decided.tasks, decided.differing or 0, decided.tasks if says else 0], {})


def of_cells(key: ArmKey, cells: ReportedCells) -> ArmContribution:
    """Return a record's cells. If feedback grades the workload, its grades are added to the cells instead."""
    groups: Groups = {cell: ReportedGroup(n, cells.failures.get(cell, 0)) for cell, n in cells.tasks.items()}
    return ArmContribution(key, [0] * len(ARM_ONLY_NUMBERS), groups)


def of_grade(
    key: RouteKey, success: bool, *, cost: int | None, cap: int | None, pair: str | None
) -> Contribution:
    """Return how a later grade of one task changes the sums of its minute.

    cost   nano-USD of all its attempts; None: unknown
    cap    the rollout's cost cap
    pair   the route pair, if the policies differ on the task
    """
    numbers: Figures = [0] * len(NUMBERS)
    change: Figures = [0] * len(SLICE)
    good, bad = int(success), int(not success)
    numbers[_AT["successes"]], numbers[_AT["failures"]], numbers[_AT["ungraded"]] = good, bad, -1
    change[_SLICE_AT["successes"]], change[_SLICE_AT["failures"]] = good, bad
    if cost is not None:
        capped = cost if cap is None else min(cost, cap)
        for name, figure in (
            ("cost_on_success", cost * good), ("capped_on_success", capped * good),
            ("graded_n", 1), ("graded_successes", good), ("graded_sum", cost), ("graded_on_success", cost * good),
            ("graded_sum_sq", float(cost) * cost), ("graded_capped_sum", capped),
            ("graded_capped_sum_sq", float(capped) * capped), ("graded_capped_on_success", capped * good),
        ):  # fmt: skip
            numbers[_AT[name]] = figure
            if name in _SLICE_AT:
                change[_SLICE_AT[name]] = figure
    return Contribution(key, numbers, ({}, {}, {}, {}, {}, {}, {}, {} if pair is None else {pair: change}))


def of_graded_cell(key: ArmKey, cell: int, success: bool) -> ArmContribution:
    """Return how a later grade changes the cell of the task's unit."""
    group = ReportedGroup(1, 0 if success else 1)
    return ArmContribution(key, [0] * len(ARM_ONLY_NUMBERS), {str(cell): group})


# --- single events ----------------------------------------------------------------------------------------


def event_bucket(
    event: ReportedEvent, index_of: Callable[[float], int | None], cap: int | None = None
) -> ReportedBucket:
    """Return one task as a bucket.

    index_of   value → the histogram bucket, None for zero
    cap        the rollout's cost cap in nano-USD; None: there is none
    """
    success = event.success
    return ReportedBucket(
        minute=event.at.astimezone(UTC).replace(second=0, microsecond=0),
        workload=event.workload, arm=event.arm, version=event.version,
        rollout=event.rollout, stage=event.stage,
        endpoint=event.endpoint, rule=event.rule, model=event.model,
        tasks=1, successes=int(success is True), failures=int(success is False),
        ungraded=int(success is None),
        errors=int(event.error is not None), escalations=int(event.escalated), fallbacks=int(event.fallback),
        retries=int(event.retries > 0), attempts=event.attempts,
        quality=_moment(event.quality), confidence=_moment(event.confidence),
        cost_nusd=_cost(event.cost_nusd, success is True, index_of, cap),
        latency_ms=ReportedHistogram() if event.latency_ms is None else _single(event.latency_ms, index_of),
        models={event.model: 1} if event.model else {},
        errors_by_kind={} if event.error is None else {event.error: 1},
    )  # fmt: skip


def _cost(
    cost: int | None, success: bool, index_of: Callable[[float], int | None], cap: int | None
) -> ReportedCost:
    if cost is None:
        return ReportedCost()
    cut = cost if cap is None else min(cost, cap)
    capped = ReportedCapped(cut, float(cut) * cut, cut if success else 0) if cut < cost else None
    paid = cost if success else 0
    return ReportedCost(1, cost, float(cost) * cost, paid, capped, histogram=_single(cost, index_of))


def _moment(value: float | None) -> ReportedMoments:
    return ReportedMoments() if value is None else ReportedMoments(1, value, value * value)


def _single(value: float, index_of: Callable[[float], int | None]) -> ReportedHistogram:
    index = index_of(value)
    return ReportedHistogram(4, 1, {}) if index is None else ReportedHistogram(4, 0, {str(index): 1})
