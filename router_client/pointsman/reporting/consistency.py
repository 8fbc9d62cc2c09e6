"""Check whether a report contradicts itself: counts, sums, histograms and times must be consistent.

The control plane and `FakeControlPlane` use the same rules, each of which is defined here once. Reports are objects
with the protocol's fields as attributes. Their types and ranges were checked during parsing.

Nearly all buckets are consistent, and tens of thousands arrive each second: `is_consistent` only returns a bool.
Messages are created only for inconsistent ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from pointsman.reporting.histogram import MAX_INDEX, MIN_INDEX
from pointsman.reporting.limits import CELLS, GROUPS, OTHER, PARTS, ROUTES, SAME
from pointsman.reporting.shapes import (
    BucketReport,
    CellsReport,
    CostReport,
    DecidedReport,
    DifferingReport,
    EventReport,
    GradedReport,
    GradesReport,
    GroupReport,
    HistogramReport,
    MirrorReport,
    MomentsReport,
    MoneyReport,
    PlaceReport,
    ShadowReport,
    WhereReport,
)

__all__ = [
    "NEWEST", "OLDEST", "TOO_OLD", "Found", "cells_contradictions", "contradictions", "decided_contradictions",
    "event_contradictions", "is_ahead", "is_consistent",
]  # fmt: skip

OLDEST = timedelta(days=7)
TOO_OLD = "older than 7 days"
NEWEST = timedelta(minutes=5)
_SLACK = 1e-6  # relative, for sums of floats
_INDEXES = frozenset(map(str, range(MIN_INDEX, MAX_INDEX + 1)))  # as written: no "+1", "007" or "-0"
_GROUPS = frozenset(map(str, range(GROUPS)))
_CELLS = frozenset(map(str, range(CELLS)))
_AT_LEAST_ONE = ("errors", "escalations", "fallbacks", "retries")  # count tasks with one or more

Found = list[tuple[str, str]]  # (field, sentence)


# --- entry points ------------------------------------------------------------------------------------


def is_ahead(minute: datetime, now: datetime) -> bool:
    """Return whether the reporter's clock is ahead, so that the minute cannot be accepted yet."""
    return minute.tzinfo is not None and minute > now + NEWEST


def contradictions(bucket: BucketReport, now: datetime | None) -> Found:
    """Return all contradictions of a bucket as (field, sentence); empty if it is consistent.

    now   None to skip the comparison of the minute with a clock
    """
    if is_consistent(bucket, now):
        return []
    return [
        *_counts(bucket),
        *_moments(bucket),
        *_costs(bucket),
        *_histogram("latency_ms", bucket.latency_ms, bucket.tasks, exact=False),
        *_details(bucket),
        *_differing(bucket),
        *_place("minute", bucket.minute, bucket, now, whole=True),
    ]


def event_contradictions(event: EventReport, now: datetime | None) -> Found:
    """Return the contradictions of a single outcome."""
    found = _place("at", event.at, event, now, whole=False)
    if "\0" in event.event_id or "\0" in (event.error or ""):
        found.append(("event_id", "a text contains a NUL character"))
    return found


def decided_contradictions(entry: DecidedReport, now: datetime | None) -> Found:
    """Return the contradictions of an entry of `decided`."""
    found = _place("minute", entry.minute, entry, now, whole=True)
    if entry.differing is not None and entry.differing > entry.tasks:
        found.append(("differing", "it counts decisions: it cannot exceed tasks"))
    return found


def cells_contradictions(entry: CellsReport, now: datetime | None) -> Found:
    """Return the contradictions of an entry of `cells`."""
    found = _place("minute", entry.minute, entry, now, whole=True)
    if not (entry.tasks.keys() <= _CELLS and entry.failures.keys() <= _CELLS):
        found.append(("tasks", f"a cell is a whole number from 0 to {CELLS - 1}"))
    if any(count > entry.tasks.get(cell, 0) for cell, count in entry.failures.items()):
        found.append(("failures", "a cell has more failures than tasks"))
    return found


def is_consistent(bucket: BucketReport, now: datetime | None) -> bool:
    """Return whether the bucket has no contradictions."""
    tasks, cost, latency, minute = bucket.tasks, bucket.cost_nusd, bucket.latency_ms, bucket.minute
    return (
        tasks == bucket.successes + bucket.failures + bucket.ungraded
        and bucket.errors <= tasks
        and bucket.escalations <= tasks
        and bucket.fallbacks <= tasks
        and bucket.retries <= tasks
        and bucket.quality.n <= tasks
        and _are_shares(bucket.quality)
        and bucket.confidence.n <= tasks
        and _are_shares(bucket.confidence)
        and cost.n <= tasks
        and _are_costs(cost)
        and (cost.graded is None or _is_graded(cost.graded, cost, bucket))
        and _counted(cost.histogram) == cost.n
        and cost.histogram.counts.keys() <= _INDEXES
        and _counted(latency) <= tasks
        and latency.counts.keys() <= _INDEXES
        and bucket.groups.keys() <= _GROUPS
        and _are_groups(bucket.groups, tasks, bucket.failures)
        and _are_parts(bucket.models, tasks)
        and _are_parts(bucket.errors_by_kind, bucket.errors)
        and _is_shadow(bucket.shadow, tasks)
        and _is_mirror(bucket.mirror, tasks)
        and (not bucket.differing or _are_pairs(bucket.differing, bucket))
        and not _names_hold_nul(bucket)
        and minute.tzinfo is not None
        and (now is None or _is_recent(minute, now))
        and not (minute.second or minute.microsecond)
        and (bucket.rollout is None) == (bucket.stage is None)
        and not (bucket.arm == "candidate" and bucket.rollout is None)
        and not _texts_hold_nul(bucket)
    )


# --- the rules ----------------------------------------------------------------------------------------


def _are_shares(moments: MomentsReport) -> bool:
    """Return whether n values between 0 and 1 can have these sums: Σx² ≤ Σx ≤ n, and (Σx)² ≤ n Σx² (Cauchy-Schwarz)."""
    n, total, squares = moments.n, moments.sum, moments.sum_sq
    slack = _SLACK * (n + 1)
    return total <= n + slack and squares <= total + slack and total * total <= n * squares + slack * (n + 1)


def _impossible(n: int, total: int, squares: float) -> bool:
    """Return whether no n values ≥ 0 can have these sums: Σx²/n ≥ (Σx/n)², and Σx² ≤ (Σx)²."""
    if n == 0:
        return bool(total or squares)
    square = float(total) * total
    return square > n * squares * (1 + _SLACK) + 1 or squares > square * (1 + _SLACK) + 1


def _are_costs(cost: CostReport) -> bool:
    return (
        cost.sum_on_success <= cost.sum
        and not _impossible(cost.n, cost.sum, cost.sum_sq)
        and (cost.capped is None or _is_capped(cost.n, cost.capped, cost))
    )


def _is_capped(n: int, capped: MoneyReport, whole: MoneyReport) -> bool:
    return (
        capped.sum <= whole.sum
        and capped.sum_on_success <= min(capped.sum, whole.sum_on_success)
        and capped.sum_sq <= whole.sum_sq * (1 + _SLACK) + 1
        and not _impossible(n, capped.sum, capped.sum_sq)
    )


def _is_graded(graded: GradedReport, cost: CostReport, of: GradesReport) -> bool:
    """Return whether these can be the sums over the priced tasks that have a grade.

    A success has a grade, so the cost of priced successes must be the same in both.
    """
    failures = graded.n - graded.successes
    return (
        0 <= failures <= of.failures
        and graded.successes <= of.successes
        and graded.n <= cost.n <= graded.n + of.ungraded
        and graded.sum <= cost.sum
        and graded.sum_on_success == cost.sum_on_success
        and graded.sum_on_success <= graded.sum
        and graded.sum_sq <= cost.sum_sq * (1 + _SLACK) + 1
        and not _impossible(graded.n, graded.sum, graded.sum_sq)
        and (graded.capped is None or _is_capped(graded.n, graded.capped, graded))
    )


def _counted(histogram: HistogramReport) -> int:
    return histogram.zero + sum(histogram.counts.values())


def _are_groups(groups: Mapping[str, GroupReport], tasks: int, failures: int) -> bool:
    """Return whether the groups add up to the total. Their names are checked elsewhere."""
    for group in groups.values():
        if group.failures > group.tasks:
            return False
        tasks -= group.tasks
        failures -= group.failures
    return tasks >= 0 and failures >= 0


def _are_parts(counts: Mapping[str, int], whole: int) -> bool:
    """Return whether there are at most 64 names, none with more than the total."""
    return not counts or (len(counts) <= PARTS and max(counts.values()) <= whole)


def _is_shadow(shadow: ShadowReport, tasks: int) -> bool:
    routes = shadow.routes
    return (
        shadow.agreed <= shadow.decisions <= tasks
        and (shadow.candidate_priced or 0) <= shadow.decisions
        and (shadow.baseline_priced or 0) <= shadow.decisions
        and sum(routes.values()) <= shadow.decisions
        and len(routes) <= ROUTES
    )


def _is_mirror(mirror: MirrorReport, tasks: int) -> bool:
    compared = mirror.both + mirror.only_candidate + mirror.only_baseline + mirror.neither
    return mirror.n <= tasks and mirror.n == compared and mirror.failed + mirror.braked <= tasks


def _are_pairs(pairs: Mapping[str, DifferingReport], of: GradesReport) -> bool:
    successes = failures = ungraded = 0
    for pair, part in pairs.items():
        cost = part.cost_nusd
        if (
            part.tasks != part.successes + part.failures + part.ungraded
            or cost.n > part.tasks
            or not _are_costs(cost)
            or (cost.graded is not None and not _is_graded(cost.graded, cost, part))
            or not _is_pair(pair)
        ):
            return False
        successes += part.successes
        failures += part.failures
        ungraded += part.ungraded
    return (
        successes <= of.successes
        and failures <= of.failures
        and ungraded <= of.ungraded
        and len(pairs) <= PARTS + 1
    )


def _is_pair(pair: str) -> bool:
    return (">" in pair or pair in (SAME, OTHER)) and "\0" not in pair


def _is_recent(moment: datetime, now: datetime) -> bool:
    return now - OLDEST <= moment


def _texts_hold_nul(item: PlaceReport) -> bool:
    return (
        "\0" in item.endpoint
        or "\0" in item.rule
        or "\0" in item.model
        or "\0" in item.workload
        or (item.rollout is not None and "\0" in item.rollout)
    )


def _names_hold_nul(bucket: BucketReport) -> bool:
    return "\0" in "".join((*bucket.models, *bucket.errors_by_kind, *bucket.shadow.routes))


# --- the messages ------------------------------------------------------------------------------------


def _counts(bucket: BucketReport) -> Found:
    found: Found = []
    if bucket.tasks != bucket.successes + bucket.failures + bucket.ungraded:
        found.append(("tasks", "tasks = successes + failures + ungraded does not hold"))
    over = [field for field in _AT_LEAST_ONE if getattr(bucket, field) > bucket.tasks]
    found.extend((field, "counts tasks with at least one: it cannot exceed tasks") for field in over)
    return found


def _moments(bucket: BucketReport) -> Found:
    found: Found = []
    for field, moments in (("quality", bucket.quality), ("confidence", bucket.confidence)):
        if moments.n > bucket.tasks:
            found.append((field, "n exceeds tasks"))
        if not _are_shares(moments):
            found.append((field, "the sums contradict n values between 0 and 1"))
    return found


def _costs(bucket: BucketReport) -> Found:
    cost = bucket.cost_nusd
    found = _cost_sums("cost_nusd", cost, bucket)
    return found + _histogram("cost_nusd.histogram", cost.histogram, cost.n, exact=True)


def _cost_sums(field: str, cost: CostReport, of: GradesReport) -> Found:
    found: Found = []
    if cost.n > of.tasks:
        found.append((field, "n exceeds tasks"))
    if cost.sum_on_success > cost.sum:
        found.append((field, "sum_on_success exceeds sum"))
    if _impossible(cost.n, cost.sum, cost.sum_sq):
        found.append((field, "sum and sum_sq contradict n"))
    if cost.capped is not None and not _is_capped(cost.n, cost.capped, cost):
        found.append((f"{field}.capped", "the capped sums contradict the whole ones"))
    if cost.graded is not None and not _is_graded(cost.graded, cost, of):
        found.append((f"{field}.graded", "the sums of graded tasks contradict the whole ones"))
    return found


def _histogram(field: str, histogram: HistogramReport, n: int, *, exact: bool) -> Found:
    counted = _counted(histogram)
    if counted > n or (exact and counted != n):
        return [(field, f"it counts {counted}, which contradicts {n}")]
    if not histogram.counts.keys() <= _INDEXES:
        return [(field, f"an index is a whole number from {MIN_INDEX} to {MAX_INDEX}")]
    return []


def _details(bucket: BucketReport) -> Found:
    found: Found = []
    if not bucket.groups.keys() <= _GROUPS:
        found.append(("groups", "a group is bucket(salt, unit) mod 32: 0 to 31"))
    if not _are_groups(bucket.groups, bucket.tasks, bucket.failures):
        found.append(("groups", "the groups contradict tasks and failures"))
    if not _are_parts(bucket.models, bucket.tasks):
        found.append(("models", "a model takes part in at most every task, and there are at most 64"))
    if not _are_parts(bucket.errors_by_kind, bucket.errors):
        found.append(("errors_by_kind", "a kind counts at most every error, and there are at most 64"))
    if not _is_shadow(bucket.shadow, bucket.tasks):
        found.append(("shadow", "the shadow's counts contradict one another"))
    if not _is_mirror(bucket.mirror, bucket.tasks):
        found.append(
            (
                "mirror",
                "n = both + only_candidate + only_baseline + neither, or failed + braked <= tasks, does not hold",
            )
        )
    if _names_hold_nul(bucket):
        found.append(("models", "a name contains a NUL character"))
    return found


def _differing(bucket: BucketReport) -> Found:
    pairs = bucket.differing or {}
    found: Found = []
    if len(pairs) > PARTS + 1:
        found.append(("differing", f"at most {PARTS} route pairs, and {OTHER!r}"))
    if not all(map(_is_pair, pairs)):
        found.append(("differing", f"a route pair is `a>b`, {SAME!r} or {OTHER!r}"))
    for name in ("successes", "failures", "ungraded"):
        if sum(getattr(part, name) for part in pairs.values()) > getattr(bucket, name):
            found.append(("differing", f"the route pairs together exceed {name}"))
    for pair, part in pairs.items():
        if part.tasks != part.successes + part.failures + part.ungraded:
            found.append(("differing", f"{pair}: tasks = successes + failures + ungraded does not hold"))
        found += _cost_sums("differing", part.cost_nusd, part)
    return found


def _place(field: str, moment: datetime, item: WhereReport, now: datetime | None, *, whole: bool) -> Found:
    found: Found = []
    if moment.tzinfo is None:
        found.append((field, "a time needs its zone: end it with Z"))
    elif now is not None and not _is_recent(moment, now):
        found.append((field, TOO_OLD))
    if whole and (moment.second or moment.microsecond):
        found.append((field, "a minute has no seconds"))
    if whole and (item.rollout is None) != (item.stage is None):
        found.append(("stage", "a rollout and its stage must be given together"))
    if item.arm == "candidate" and item.rollout is None:
        found.append(("arm", "a candidate exists only within a rollout"))
    texts = (getattr(item, name, "") for name in ("endpoint", "rule", "model"))
    if any("\0" in text for text in (item.workload, item.rollout or "", *texts)):
        found.append(("endpoint", "a text contains a NUL character"))
    return found
