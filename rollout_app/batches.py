"""What routers report, as the protocol fixes it: decoded, checked against itself, and turned into figures to add.

Pure: nothing here looks at the database. `known.py` says whether what a report names exists.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from controlplane.errors import InvalidInput, MalformedBody

T = TypeVar("T")
OLDEST = timedelta(days=7)
NEWEST = timedelta(minutes=5)
MOST = 1_000  # buckets or events in one request
# Bounds that no honest minute reaches, so that sums of very many stay within 64 bits.
Count = Annotated[int, Meta(ge=0, le=10**9)]
Money = Annotated[int, Meta(ge=0, le=10**15)]  # nano-USD: a million dollars
Real = Annotated[float, Meta(ge=0, le=1e36)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(max_length=200)]
Name = Annotated[str, Meta(max_length=120)]
Arm = Literal["baseline", "candidate"]
# Buckets of the exponential histogram at scale 4 that a double can fall into.
LOWEST_INDEX, HIGHEST_INDEX = -17_200, 16_383
_SLACK = 1e-6  # relative, for sums of floats


class Moments(Struct, forbid_unknown_fields=True):
    n: Count = 0
    sum: Real = 0.0
    sum_sq: Real = 0.0


class Histogram(Struct, forbid_unknown_fields=True):
    scale: Literal[4] = 4
    zero: Count = 0
    counts: dict[str, Count] = {}


class Capped(Struct, forbid_unknown_fields=True):
    sum: Money
    sum_sq: Real
    sum_on_success: Money


class Cost(Struct, forbid_unknown_fields=True):
    n: Count = 0
    sum: Money = 0
    sum_sq: Real = 0.0
    sum_on_success: Money = 0
    capped: Capped | None = None  # absent: no task was above the cap
    histogram: Histogram = msgspec.field(default_factory=Histogram)


class Group(Struct, forbid_unknown_fields=True):
    tasks: Count
    failures: Count


class Shadow(Struct, forbid_unknown_fields=True):
    decisions: Count = 0
    agreed: Count = 0
    candidate_cost_nusd: Money = 0
    baseline_cost_nusd: Money = 0
    evaluation_errors: Count = 0
    routes: dict[Text, Count] = {}


class Mirror(Struct, forbid_unknown_fields=True):
    n: Count = 0
    both: Count = 0
    only_candidate: Count = 0
    only_baseline: Count = 0
    neither: Count = 0
    candidate_cost_nusd: Money = 0
    baseline_cost_nusd: Money = 0


class Bucket(Struct, forbid_unknown_fields=True):
    """One minute of one route. `errors`, `escalations`, `fallbacks` and `retries` count tasks with at least one."""

    minute: datetime
    workload: Name
    arm: Arm
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    tasks: Count
    successes: Count
    failures: Count
    ungraded: Count
    rollout: Annotated[str, Meta(max_length=36)] | None = None
    stage: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    endpoint: Text = ""
    rule: Name = ""
    model: Name = ""
    errors: Count = 0
    escalations: Count = 0
    fallbacks: Count = 0
    retries: Count = 0
    attempts: Count = 0
    quality: Moments = msgspec.field(default_factory=Moments)
    confidence: Moments = msgspec.field(default_factory=Moments)
    cost_nusd: Cost = msgspec.field(default_factory=Cost)
    latency_ms: Histogram = msgspec.field(default_factory=Histogram)
    groups: dict[str, Group] = {}
    models: dict[Name, Count] = {}
    errors_by_kind: dict[Name, Count] = {}
    shadow: Shadow = msgspec.field(default_factory=Shadow)
    mirror: Mirror = msgspec.field(default_factory=Mirror)


class Event(Struct, forbid_unknown_fields=True):
    """One task, for a router that cannot aggregate. `success` null: nobody graded it."""

    event_id: Annotated[str, Meta(min_length=1, max_length=62)]
    at: datetime
    workload: Name
    arm: Arm
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    rollout: Annotated[str, Meta(max_length=36)] | None = None
    stage: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    endpoint: Text = ""
    rule: Name = ""
    model: Name = ""
    success: bool | None = None
    quality: Share | None = None
    confidence: Share | None = None
    cost_nusd: Annotated[int, Meta(ge=0, le=10**12)] | None = None
    latency_ms: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    escalated: bool = False
    fallback: bool = False
    retries: Count = 0
    attempts: Count = 1
    error: Name | None = None


class Word(Struct, forbid_unknown_fields=True):
    """A later word on a decision."""

    decision_id: Annotated[str, Meta(min_length=1, max_length=4_096)]
    kind: Literal["human_review", "satisfaction", "downstream"]
    success: bool | None = None
    score: Share | None = None


class Problem(NamedTuple):
    """What is wrong with one bucket, event or word, by its index in the request."""

    index: int
    field: str
    message: str


class _Batch(Struct, forbid_unknown_fields=True):
    batch_id: str
    buckets: Annotated[list[Bucket], Meta(max_length=MOST)]
    router: Annotated[str, Meta(max_length=128)] = ""


class _RawBatch(Struct, forbid_unknown_fields=True):
    batch_id: str
    buckets: Annotated[list[msgspec.Raw], Meta(max_length=MOST)]
    router: Annotated[str, Meta(max_length=128)] = ""


class _Events(Struct, forbid_unknown_fields=True):
    events: Annotated[list[Event], Meta(max_length=MOST)]


class _RawEvents(Struct, forbid_unknown_fields=True):
    events: Annotated[list[msgspec.Raw], Meta(max_length=MOST)]


class _Feedback(Struct, forbid_unknown_fields=True):
    feedback: Annotated[list[Word], Meta(max_length=MOST)]


class _RawFeedback(Struct, forbid_unknown_fields=True):
    feedback: Annotated[list[msgspec.Raw], Meta(max_length=MOST)]


_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    shape: msgspec.json.Decoder(shape)
    for shape in (_Batch, _RawBatch, _Events, _RawEvents, _Feedback, _RawFeedback, Bucket, Event, Word)
}


def read_batch(body: bytes) -> tuple[str, list[Bucket]]:
    """(batch id, buckets). Raises `MalformedBody`, or `InvalidInput` naming every bucket of a wrong shape."""
    batch = _read(body, _Batch, _RawBatch, "buckets", Bucket)
    if not _is_uuid(batch.batch_id):
        raise InvalidInput("`batch_id` is a UUID that the router makes for each new batch.")
    return batch.batch_id.lower(), batch.buckets


def read_events(body: bytes) -> list[Event]:
    events: list[Event] = _read(body, _Events, _RawEvents, "events", Event).events
    return events


def read_feedback(body: bytes) -> list[Word]:
    words: list[Word] = _read(body, _Feedback, _RawFeedback, "feedback", Word).feedback
    return words


def _read(body: bytes, shape: type, raw: type, member: str, item: type) -> Any:
    """Decode at once; only a body that fails is read again, piece by piece, to name each bad piece."""
    try:
        return _decoders[shape].decode(body)
    except msgspec.ValidationError as error:
        problems = _piecewise(body, raw, member, item)
        raise (
            refusal(member, problems) if problems else InvalidInput(f"The body is not valid: {error}.")
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None


def _piecewise(body: bytes, raw: type, member: str, item: type) -> list[Problem]:
    try:
        pieces = getattr(_decoders[raw].decode(body), member)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The body is not valid: {error}.") from None
    problems = []
    for index, piece in enumerate(pieces):
        try:
            _decoders[item].decode(piece)
        except msgspec.DecodeError as error:
            message, _, path = str(error).partition(" - at `$")
            problems.append(Problem(index, path.strip(".`"), message))
    return problems


def refusal(member: str, problems: Sequence[Problem]) -> InvalidInput:
    """The 422 that names each bad piece by its index."""
    bad = len({problem.index for problem in problems})
    return InvalidInput(
        f"{bad} of the {member} {'is' if bad == 1 else 'are'} not valid; nothing was counted.",
        [problem._asdict() for problem in problems],
    )


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
        return [(field, f"an index is a whole number from {LOWEST_INDEX} to {HIGHEST_INDEX}")]
    return []


def _is_index(key: str) -> bool:
    digits = key[1:] if key[:1] == "-" else key
    if not (digits.isdigit() and digits.isascii() and len(digits) <= 5):
        return False
    return LOWEST_INDEX <= int(key) <= HIGHEST_INDEX and (digits == "0" or digits[0] != "0") and key != "-0"


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


def event_bucket(event: Event, index_of: Any) -> Bucket:
    """One task as the bucket that it adds to. `index_of(value)` is the histogram's bucket, None for zero."""
    cost, success = event.cost_nusd, event.success
    return Bucket(
        minute=event.at.astimezone(UTC).replace(second=0, microsecond=0),
        workload=event.workload, arm=event.arm, version=event.version, rollout=event.rollout, stage=event.stage,
        endpoint=event.endpoint, rule=event.rule, model=event.model,
        tasks=1, successes=int(success is True), failures=int(success is False), ungraded=int(success is None),
        errors=int(event.error is not None), escalations=int(event.escalated), fallbacks=int(event.fallback),
        retries=int(event.retries > 0), attempts=event.attempts,
        quality=_moment(event.quality), confidence=_moment(event.confidence),
        cost_nusd=Cost() if cost is None else Cost(
            1, cost, float(cost) * cost, cost if success else 0, None, _single(cost, index_of)
        ),
        latency_ms=Histogram() if event.latency_ms is None else _single(event.latency_ms, index_of),
        models={event.model: 1} if event.model else {},
        errors_by_kind={} if event.error is None else {event.error: 1},
    )  # fmt: skip


def _moment(value: float | None) -> Moments:
    return Moments() if value is None else Moments(1, value, value * value)


def _single(value: float, index_of: Any) -> Histogram:
    index = index_of(value)
    return Histogram(4, 1, {}) if index is None else Histogram(4, 0, {str(index): 1})


def numbers(bucket: Bucket) -> list[float]:
    """The bucket's figures in the order of `outcomes.NUMBERS`."""
    quality, confidence, cost = bucket.quality, bucket.confidence, bucket.cost_nusd
    capped = cost.capped or cost
    return [
        bucket.tasks, bucket.successes, bucket.failures, bucket.ungraded,
        bucket.errors, bucket.escalations, bucket.fallbacks, bucket.retries, bucket.attempts,
        quality.n, quality.sum, quality.sum_sq, confidence.n, confidence.sum, confidence.sum_sq,
        cost.n, cost.sum, cost.sum_sq, cost.sum_on_success,
        capped.sum, capped.sum_sq, capped.sum_on_success,
    ]  # fmt: skip


def details(bucket: Bucket) -> tuple[Mapping[str, Any], ...]:
    """The bucket's maps in the order of `outcomes.DETAILS`, as they are stored; empty where there is nothing."""
    cost, latency, shadow, mirror = (
        bucket.cost_nusd.histogram,
        bucket.latency_ms,
        bucket.shadow,
        bucket.mirror,
    )
    return (
        {"zero": cost.zero, "counts": cost.counts} if bucket.cost_nusd.n else {},
        {"zero": latency.zero, "counts": latency.counts} if latency.zero or latency.counts else {},
        {key: [group.tasks, group.failures] for key, group in bucket.groups.items()},
        bucket.models,
        bucket.errors_by_kind,
        msgspec.structs.asdict(shadow) if shadow.decisions or shadow.evaluation_errors else {},
        msgspec.structs.asdict(mirror) if mirror.n else {},
    )


def _is_uuid(text: str) -> bool:
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(
        character in "0123456789abcdefABCDEF" for part in parts for character in part
    )
