"""Whether a report contradicts itself: counts, sums, histograms and times against one another. Pure."""

from datetime import datetime, timedelta

from pointsman.histogram import MAX_INDEX, MIN_INDEX
from rollout_app.batches import Bucket, Cost, Event, Histogram, Problem

OLDEST = timedelta(days=7)
NEWEST = timedelta(minutes=5)
_SLACK = 1e-6  # relative, for sums of floats


def contradictions(index: int, bucket: Bucket, now: datetime) -> list[Problem]:
    """Everything by which a bucket contradicts itself. Empty for a good one."""
    found = [
        *_counts(bucket),
        *_moments(bucket),
        *_costs(bucket.cost_nusd, bucket.tasks),
        *_histogram("latency_ms", bucket.latency_ms, bucket.tasks, exact=False),
        *_details(bucket),
        *_place(bucket, now),
    ]
    return [Problem(index, field, message) for field, message in found]


Found = list[tuple[str, str]]


def _place(bucket: Bucket | Event, now: datetime) -> Found:
    found: Found = []
    minute, field = (bucket.minute, "minute") if isinstance(bucket, Bucket) else (bucket.at, "at")
    if minute.tzinfo is None:
        found.append((field, "a time needs its zone: end it with Z"))
    elif not now - OLDEST <= minute <= now + NEWEST:
        found.append((field, "older than 7 days or more than 5 minutes ahead"))
    if field == "minute" and (minute.second or minute.microsecond):
        found.append((field, "a minute has no seconds"))
    if (bucket.rollout is None) != (bucket.stage is None) and isinstance(bucket, Bucket):
        found.append(("stage", "a rollout and its stage come together"))
    if bucket.arm == "candidate" and bucket.rollout is None:
        found.append(("arm", "there is a candidate only within a rollout"))
    texts = (bucket.endpoint, bucket.rule, bucket.model, bucket.workload, bucket.rollout or "")
    if any("\0" in text for text in texts):
        found.append(("endpoint", "a text holds a NUL character"))
    return found


def _counts(bucket: Bucket) -> Found:
    tasks = bucket.tasks
    found: Found = []
    if tasks != bucket.successes + bucket.failures + bucket.ungraded:
        found.append(("tasks", "tasks = successes + failures + ungraded does not hold"))
    if max(bucket.errors, bucket.escalations, bucket.fallbacks, bucket.retries) > tasks:
        over = [f for f in ("errors", "escalations", "fallbacks", "retries") if getattr(bucket, f) > tasks]
        found.extend((field, "counts tasks with at least one: it cannot exceed tasks") for field in over)
    return found


def _moments(bucket: Bucket) -> Found:
    found: Found = []
    for field, moment in (("quality", bucket.quality), ("confidence", bucket.confidence)):
        n, total, squares = moment.n, moment.sum, moment.sum_sq
        slack = _SLACK * (n + 1)
        if n > bucket.tasks:
            found.append((field, "n exceeds tasks"))
        # Values between 0 and 1: Σx² ≤ Σx ≤ n, and (Σx)² ≤ n Σx² (Cauchy-Schwarz).
        if total > n + slack or squares > total + slack or total * total > n * squares + slack * (n + 1):
            found.append((field, "the sums contradict n values between 0 and 1"))
    return found


def _costs(cost: Cost, tasks: int) -> Found:
    found: Found = []
    if cost.n > tasks:
        found.append(("cost_nusd", "n exceeds tasks"))
    if cost.sum_on_success > cost.sum:
        found.append(("cost_nusd", "sum_on_success exceeds sum"))
    if _impossible(cost.n, cost.sum, cost.sum_sq):
        found.append(("cost_nusd", "sum and sum_sq contradict n"))
    if (capped := cost.capped) is not None:
        slack = 1 + _SLACK
        if (
            capped.sum > cost.sum
            or capped.sum_on_success > min(capped.sum, cost.sum_on_success)
            or capped.sum_sq > cost.sum_sq * slack + 1
            or _impossible(cost.n, capped.sum, capped.sum_sq)
        ):
            found.append(("cost_nusd.capped", "the capped sums contradict the whole ones"))
    return found + _histogram("cost_nusd.histogram", cost.histogram, cost.n, exact=True)


def _impossible(n: int, total: int, squares: float) -> bool:
    """True when no n values from 0 up have these sums: Σx²/n ≥ (Σx/n)², and Σx² ≤ (Σx)²."""
    if n == 0:
        return bool(total or squares)
    square = float(total) * total
    return square > n * squares * (1 + _SLACK) + 1 or squares > square * (1 + _SLACK) + 1


def _histogram(field: str, histogram: Histogram, n: int, *, exact: bool) -> Found:
    counted = histogram.zero + sum(histogram.counts.values())
    if counted > n or (exact and counted != n):
        return [(field, f"it counts {counted}, which contradicts {n}")]
    if not all(_is_index(key) for key in histogram.counts):
        return [(field, f"an index is a whole number from {MIN_INDEX} to {MAX_INDEX}")]
    return []


def _is_index(key: str) -> bool:
    digits = key[1:] if key[:1] == "-" else key
    if not (digits.isdigit() and digits.isascii() and len(digits) <= 5):
        return False
    return MIN_INDEX <= int(key) <= MAX_INDEX and (digits == "0" or digits[0] != "0") and key != "-0"


_GROUPS = frozenset(str(group) for group in range(32))


def _details(bucket: Bucket) -> Found:
    found: Found = []
    if groups := bucket.groups:
        sums = [sum(g.tasks for g in groups.values()), sum(g.failures for g in groups.values())]
        if not groups.keys() <= _GROUPS:
            found.append(("groups", "a group is bucket(salt, unit) mod 32: 0 to 31"))
        if (
            sums[0] > bucket.tasks
            or sums[1] > bucket.failures
            or any(g.failures > g.tasks for g in groups.values())
        ):
            found.append(("groups", "the groups contradict tasks and failures"))
    if any(count > bucket.tasks for count in bucket.models.values()) or len(bucket.models) > 64:
        found.append(("models", "a model takes part in at most every task, and there are at most 64"))
    if (
        any(count > bucket.errors for count in bucket.errors_by_kind.values())
        or len(bucket.errors_by_kind) > 64
    ):
        found.append(("errors_by_kind", "a kind counts at most every error, and there are at most 64"))
    shadow, mirror = bucket.shadow, bucket.mirror
    routes = shadow.routes
    if (
        not shadow.agreed <= shadow.decisions <= bucket.tasks
        or sum(routes.values()) > shadow.decisions
        or len(routes) > 256
    ):
        found.append(("shadow", "the shadow's counts contradict one another"))
    if (
        mirror.n > bucket.tasks
        or mirror.n != mirror.both + mirror.only_candidate + mirror.only_baseline + mirror.neither
    ):
        found.append(("mirror", "n = both + only_candidate + only_baseline + neither does not hold"))
    if any("\0" in key for keys in (bucket.models, bucket.errors_by_kind, routes) for key in keys):
        found.append(("models", "a name holds a NUL character"))
    return found


def event_problems(index: int, event: Event, now: datetime) -> list[Problem]:
    found = _place(event, now)
    if "\0" in event.event_id or "\0" in (event.error or ""):
        found.append(("event_id", "a text holds a NUL character"))
    return [Problem(index, field, message) for field, message in found]
