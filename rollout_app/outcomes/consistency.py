"""Whether a report contradicts itself: counts, sums, histograms and times against one another. Pure.

Nearly every bucket is sound, and tens of thousands come each second: `is_sound` only says yes or no. The
sentences are made for one that is not. Both ask the same rules, each of which stands here once.
"""

from datetime import datetime, timedelta

from pointsman.reporting.histogram import MAX_INDEX, MIN_INDEX
from rollout_app.outcomes.schemas import (
    Problem,
    ReportedBucket,
    ReportedCapped,
    ReportedCost,
    ReportedEvent,
    ReportedGroup,
    ReportedHistogram,
    ReportedMirror,
    ReportedMoments,
    ReportedShadow,
)

OLDEST = timedelta(days=7)
NEWEST = timedelta(minutes=5)
_SLACK = 1e-6  # relative, for sums of floats
_INDEXES = frozenset(map(str, range(MIN_INDEX, MAX_INDEX + 1)))  # as written: no "+1", "007" or "-0"
_GROUPS = frozenset(map(str, range(32)))
_AT_LEAST_ONE = ("errors", "escalations", "fallbacks", "retries")  # count tasks with one or more

Found = list[tuple[str, str]]


def contradictions(index: int, bucket: ReportedBucket, now: datetime) -> list[Problem]:
    """Everything by which a bucket contradicts itself. Empty for a good one."""
    if is_sound(bucket, now):
        return []
    found = [
        *_counts(bucket),
        *_moments(bucket),
        *_costs(bucket.cost_nusd, bucket.tasks),
        *_histogram("latency_ms", bucket.latency_ms, bucket.tasks, exact=False),
        *_details(bucket),
        *_place(bucket, now),
    ]
    return [Problem(index, field, message) for field, message in found]


def event_problems(index: int, event: ReportedEvent, now: datetime) -> list[Problem]:
    found = _place(event, now)
    if "\0" in event.event_id or "\0" in (event.error or ""):
        found.append(("event_id", "a text holds a NUL character"))
    return [Problem(index, field, message) for field, message in found]


def is_sound(bucket: ReportedBucket, now: datetime) -> bool:
    """True exactly when there is nothing to object to."""
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
        and cost.sum_on_success <= cost.sum
        and not _impossible(cost.n, cost.sum, cost.sum_sq)
        and (cost.capped is None or _is_capped(cost.capped, cost))
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
        and not _names_hold_nul(bucket)
        and minute.tzinfo is not None
        and _is_recent(minute, now)
        and not (minute.second or minute.microsecond)
        and (bucket.rollout is None) == (bucket.stage is None)
        and not (bucket.arm == "candidate" and bucket.rollout is None)
        and not _texts_hold_nul(bucket)
    )


# --- the rules ----------------------------------------------------------------------------------------


def _are_shares(moments: ReportedMoments) -> bool:
    """Values between 0 and 1: Σx² ≤ Σx ≤ n, and (Σx)² ≤ n Σx² (Cauchy-Schwarz)."""
    n, total, squares = moments.n, moments.sum, moments.sum_sq
    slack = _SLACK * (n + 1)
    return total <= n + slack and squares <= total + slack and total * total <= n * squares + slack * (n + 1)


def _impossible(n: int, total: int, squares: float) -> bool:
    """True when no n values from 0 up have these sums: Σx²/n ≥ (Σx/n)², and Σx² ≤ (Σx)²."""
    if n == 0:
        return bool(total or squares)
    square = float(total) * total
    return square > n * squares * (1 + _SLACK) + 1 or squares > square * (1 + _SLACK) + 1


def _is_capped(capped: ReportedCapped, cost: ReportedCost) -> bool:
    return (
        capped.sum <= cost.sum
        and capped.sum_on_success <= min(capped.sum, cost.sum_on_success)
        and capped.sum_sq <= cost.sum_sq * (1 + _SLACK) + 1
        and not _impossible(cost.n, capped.sum, capped.sum_sq)
    )


def _counted(histogram: ReportedHistogram) -> int:
    return histogram.zero + sum(histogram.counts.values())


def _are_groups(groups: dict[str, ReportedGroup], tasks: int, failures: int) -> bool:
    """Whether they fit the whole; how they are called is another rule."""
    for group in groups.values():
        if group.failures > group.tasks:
            return False
        tasks -= group.tasks
        failures -= group.failures
    return tasks >= 0 and failures >= 0


def _are_parts(counts: dict[str, int], whole: int) -> bool:
    """At most 64 names, each of which may count up to the whole."""
    return not counts or (len(counts) <= 64 and max(counts.values()) <= whole)


def _is_shadow(shadow: ReportedShadow, tasks: int) -> bool:
    routes = shadow.routes
    return (
        shadow.agreed <= shadow.decisions <= tasks
        and sum(routes.values()) <= shadow.decisions
        and len(routes) <= 256
    )


def _is_mirror(mirror: ReportedMirror, tasks: int) -> bool:
    compared = mirror.both + mirror.only_candidate + mirror.only_baseline + mirror.neither
    return mirror.n <= tasks and mirror.n == compared


def _is_recent(moment: datetime, now: datetime) -> bool:
    return now - OLDEST <= moment <= now + NEWEST


def _texts_hold_nul(item: ReportedBucket | ReportedEvent) -> bool:
    return (
        "\0" in item.endpoint
        or "\0" in item.rule
        or "\0" in item.model
        or "\0" in item.workload
        or (item.rollout is not None and "\0" in item.rollout)
    )


def _names_hold_nul(bucket: ReportedBucket) -> bool:
    return "\0" in "".join((*bucket.models, *bucket.errors_by_kind, *bucket.shadow.routes))


# --- the sentences ------------------------------------------------------------------------------------


def _counts(bucket: ReportedBucket) -> Found:
    found: Found = []
    if bucket.tasks != bucket.successes + bucket.failures + bucket.ungraded:
        found.append(("tasks", "tasks = successes + failures + ungraded does not hold"))
    over = [field for field in _AT_LEAST_ONE if getattr(bucket, field) > bucket.tasks]
    found.extend((field, "counts tasks with at least one: it cannot exceed tasks") for field in over)
    return found


def _moments(bucket: ReportedBucket) -> Found:
    found: Found = []
    for field, moments in (("quality", bucket.quality), ("confidence", bucket.confidence)):
        if moments.n > bucket.tasks:
            found.append((field, "n exceeds tasks"))
        if not _are_shares(moments):
            found.append((field, "the sums contradict n values between 0 and 1"))
    return found


def _costs(cost: ReportedCost, tasks: int) -> Found:
    found: Found = []
    if cost.n > tasks:
        found.append(("cost_nusd", "n exceeds tasks"))
    if cost.sum_on_success > cost.sum:
        found.append(("cost_nusd", "sum_on_success exceeds sum"))
    if _impossible(cost.n, cost.sum, cost.sum_sq):
        found.append(("cost_nusd", "sum and sum_sq contradict n"))
    if cost.capped is not None and not _is_capped(cost.capped, cost):
        found.append(("cost_nusd.capped", "the capped sums contradict the whole ones"))
    return found + _histogram("cost_nusd.histogram", cost.histogram, cost.n, exact=True)


def _histogram(field: str, histogram: ReportedHistogram, n: int, *, exact: bool) -> Found:
    counted = _counted(histogram)
    if counted > n or (exact and counted != n):
        return [(field, f"it counts {counted}, which contradicts {n}")]
    if not histogram.counts.keys() <= _INDEXES:
        return [(field, f"an index is a whole number from {MIN_INDEX} to {MAX_INDEX}")]
    return []


def _details(bucket: ReportedBucket) -> Found:
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
        found.append(("mirror", "n = both + only_candidate + only_baseline + neither does not hold"))
    if _names_hold_nul(bucket):
        found.append(("models", "a name holds a NUL character"))
    return found


def _place(item: ReportedBucket | ReportedEvent, now: datetime) -> Found:
    found: Found = []
    moment, field = (item.minute, "minute") if isinstance(item, ReportedBucket) else (item.at, "at")
    if moment.tzinfo is None:
        found.append((field, "a time needs its zone: end it with Z"))
    elif not _is_recent(moment, now):
        found.append((field, "older than 7 days or more than 5 minutes ahead"))
    if isinstance(item, ReportedBucket):
        if moment.second or moment.microsecond:
            found.append((field, "a minute has no seconds"))
        if (item.rollout is None) != (item.stage is None):
            found.append(("stage", "a rollout and its stage come together"))
    if item.arm == "candidate" and item.rollout is None:
        found.append(("arm", "there is a candidate only within a rollout"))
    if _texts_hold_nul(item):
        found.append(("endpoint", "a text holds a NUL character"))
    return found
