"""The shapes of router reports, as the protocol defines them.

Pure: nothing here reads the database. `pointsman.reporting.consistency` checks whether a report contradicts itself,
and `lookups` whether the names in it exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from controlplane.core import strictjson
from controlplane.core.errors import BodyTooLarge, InvalidInput, MalformedBody, TooOld
from pointsman.plurals import plural_of
from pointsman.reporting import limits
from pointsman.reporting.consistency import TOO_OLD

MOST = limits.BUCKETS  # buckets, events, or other entries in one request
MOST_SAMPLES = 100  # inputs of requests in one message
Count = Annotated[int, Meta(ge=0, le=limits.COUNT)]
Money = Annotated[int, Meta(ge=0, le=limits.MONEY_NUSD)]
Real = Annotated[float, Meta(ge=0, le=limits.REAL)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(max_length=limits.TEXT)]
Name = Annotated[str, Meta(max_length=limits.NAME)]
Pair = Annotated[str, Meta(max_length=limits.PAIR)]
Arm = Literal["baseline", "candidate"]
FeedbackKind = Literal["human_review", "satisfaction", "downstream"]
FEEDBACK_KINDS = frozenset(get_args(FeedbackKind))
Version = Annotated[int, Meta(ge=1, le=limits.VERSION)]
RolloutId = Annotated[str, Meta(max_length=limits.ROLLOUT)] | None
StageNumber = Annotated[int, Meta(ge=0, le=limits.STAGE)] | None


class ReportedMoments(Struct, forbid_unknown_fields=True, gc=False):
    n: Count = 0
    sum: Real = 0.0
    sum_sq: Real = 0.0


class ReportedHistogram(Struct, forbid_unknown_fields=True, gc=False):
    scale: Literal[4] = 4
    zero: Count = 0
    counts: dict[str, Count] = {}


class ReportedCapped(Struct, forbid_unknown_fields=True, gc=False):
    sum: Money
    sum_sq: Real
    sum_on_success: Money


class ReportedGraded(Struct, forbid_unknown_fields=True, gc=False):
    """The priced tasks that have a grade. Cost per success is computed over these."""

    n: Count
    successes: Count
    sum: Money
    sum_sq: Real
    sum_on_success: Money
    capped: ReportedCapped | None = None  # absent: no task exceeded the cap


class ReportedCostSums(Struct, forbid_unknown_fields=True, gc=False):
    """Sums of costs. `n` counts the tasks for which the cost of every attempt is known."""

    n: Count = 0
    sum: Money = 0
    sum_sq: Real = 0.0
    sum_on_success: Money = 0
    capped: ReportedCapped | None = None  # absent: no task exceeded the cap
    # Absent: every task has a cost and a grade, or the router does not report it.
    graded: ReportedGraded | None = None


class ReportedCost(ReportedCostSums, forbid_unknown_fields=True, gc=False):
    histogram: ReportedHistogram = msgspec.field(default_factory=ReportedHistogram)


class ReportedDiffering(Struct, forbid_unknown_fields=True, gc=False):
    """The tasks of one route pair on which the two policies differ."""

    tasks: Count
    successes: Count
    failures: Count
    ungraded: Count
    cost_nusd: ReportedCostSums = msgspec.field(default_factory=ReportedCostSums)


class ReportedGroup(Struct, forbid_unknown_fields=True, gc=False):
    tasks: Count
    failures: Count


class ReportedShadow(Struct, forbid_unknown_fields=True, gc=False):
    decisions: Count = 0
    agreed: Count = 0
    candidate_cost_nusd: Money = 0
    baseline_cost_nusd: Money = 0
    evaluation_errors: Count = 0
    # Decisions for which the arm's projected cost is known; None: the router does not report it.
    candidate_priced: Count | None = None
    baseline_priced: Count | None = None
    # Candidate decisions whose projected cost includes the second stage; None: it is not known of any.
    candidate_whole: Count | None = None
    routes: dict[Text, Count] = {}


class ReportedMirror(Struct, forbid_unknown_fields=True, gc=False):
    n: Count = 0
    both: Count = 0
    only_candidate: Count = 0
    only_baseline: Count = 0
    neither: Count = 0
    failed: Count = 0
    braked: Count = 0
    candidate_cost_nusd: Money = 0
    baseline_cost_nusd: Money = 0


class ReportedBucket(Struct, forbid_unknown_fields=True, gc=False):
    """One minute of one route. `errors`, `escalations`, `fallbacks` and `retries` count tasks with at least one."""

    minute: datetime
    workload: Name
    arm: Arm
    version: Version
    tasks: Count
    successes: Count
    failures: Count
    ungraded: Count
    rollout: RolloutId = None
    stage: StageNumber = None
    endpoint: Text = ""
    rule: Name = ""
    model: Name = ""
    errors: Count = 0
    escalations: Count = 0
    fallbacks: Count = 0
    retries: Count = 0
    attempts: Count = 0
    quality: ReportedMoments = msgspec.field(default_factory=ReportedMoments)
    confidence: ReportedMoments = msgspec.field(default_factory=ReportedMoments)
    cost_nusd: ReportedCost = msgspec.field(default_factory=ReportedCost)
    latency_ms: ReportedHistogram = msgspec.field(default_factory=ReportedHistogram)
    groups: dict[str, ReportedGroup] = {}
    models: dict[Name, Count] = {}
    errors_by_kind: dict[Name, Count] = {}
    shadow: ReportedShadow = msgspec.field(default_factory=ReportedShadow)
    mirror: ReportedMirror = msgspec.field(default_factory=ReportedMirror)
    # None: the router does not report it; {}: no task differs
    differing: dict[Pair, ReportedDiffering] | None = None


class ReportedDecided(Struct, forbid_unknown_fields=True, gc=False):
    """The decisions of one minute, whether or not their outcomes are ever reported."""

    minute: datetime
    workload: Name
    arm: Arm
    version: Version
    tasks: Count
    rollout: RolloutId = None
    stage: StageNumber = None
    differing: Count | None = None  # None: the router does not report it


class ReportedCells(Struct, forbid_unknown_fields=True, gc=False):
    """Tasks and failures of one minute by `bucket(workload ‖ "/cells", unit) mod 1024`."""

    minute: datetime
    workload: Name
    arm: Arm
    version: Version
    tasks: dict[str, Count]
    failures: dict[str, Count] = {}
    rollout: RolloutId = None
    stage: StageNumber = None


class ReportedEvent(Struct, forbid_unknown_fields=True, gc=False):
    """One task, for routers that cannot aggregate. `success` is null if the task is ungraded."""

    event_id: Annotated[str, Meta(min_length=1, max_length=62)]
    at: datetime
    workload: Name
    arm: Arm
    version: Version
    rollout: RolloutId = None
    stage: StageNumber = None
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


class FeedbackItem(Struct, forbid_unknown_fields=True, gc=False):
    """A later grade of a decision."""

    decision_id: Annotated[str, Meta(min_length=1, max_length=4_096)]
    kind: FeedbackKind
    success: bool | None = None
    score: Share | None = None


class SampledRequest(Struct, forbid_unknown_fields=True, gc=False):
    """The inputs of one request, as figures and names: see `pointsman.reporting.samples.figures`."""

    workload: Name
    sample_id: Annotated[str, Meta(min_length=1, max_length=62)]
    request: dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong with one entry, identified by its index in one of the request's lists."""

    index: int
    field: str
    message: str
    list: str


class ReportedBatch(Struct, forbid_unknown_fields=True, gc=False):
    batch_id: str
    buckets: Annotated[list[ReportedBucket], Meta(max_length=MOST)]
    router: Annotated[str, Meta(max_length=limits.ROUTER)] = ""
    # None: the router does not count its decisions. One that does always sends the list, even if empty.
    decided: Annotated[list[ReportedDecided], Meta(max_length=MOST)] | None = None
    cells: Annotated[list[ReportedCells], Meta(max_length=MOST)] = []


class _RawBatch(Struct, forbid_unknown_fields=True, gc=False):
    batch_id: str
    buckets: Annotated[list[msgspec.Raw], Meta(max_length=MOST)]
    router: Annotated[str, Meta(max_length=limits.ROUTER)] = ""
    decided: Annotated[list[msgspec.Raw], Meta(max_length=MOST)] | None = None
    cells: Annotated[list[msgspec.Raw], Meta(max_length=MOST)] = []


class _Events(Struct, forbid_unknown_fields=True, gc=False):
    events: Annotated[list[ReportedEvent], Meta(max_length=MOST)]


class _RawEvents(Struct, forbid_unknown_fields=True, gc=False):
    events: Annotated[list[msgspec.Raw], Meta(max_length=MOST)]


class _Feedback(Struct, forbid_unknown_fields=True, gc=False):
    feedback: Annotated[list[FeedbackItem], Meta(max_length=MOST)]


class _RawFeedback(Struct, forbid_unknown_fields=True, gc=False):
    feedback: Annotated[list[msgspec.Raw], Meta(max_length=MOST)]


class _Samples(Struct, forbid_unknown_fields=True, gc=False):
    inputs: Annotated[list[SampledRequest], Meta(max_length=MOST_SAMPLES)]


class _RawSamples(Struct, forbid_unknown_fields=True, gc=False):
    inputs: Annotated[list[msgspec.Raw], Meta(max_length=MOST_SAMPLES)]


_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    shape: msgspec.json.Decoder(shape)
    for shape in (
        *(ReportedBatch, _RawBatch, _Events, _RawEvents, _Feedback, _RawFeedback),
        *(ReportedBucket, ReportedDecided, ReportedCells, ReportedEvent, FeedbackItem),
        *(_Samples, _RawSamples, SampledRequest),
    )
}


def read_batch(body: bytes) -> ReportedBatch:
    """Decode a batch. Raises `MalformedBody`, `BodyTooLarge` for a list that is too long, or `InvalidInput` naming
    every entry with a wrong shape.
    """
    entries = {"buckets": ReportedBucket, "decided": ReportedDecided, "cells": ReportedCells}
    batch: ReportedBatch = _read(body, ReportedBatch, _RawBatch, entries)
    if not _is_uuid(batch.batch_id):
        raise InvalidInput("`batch_id` must be a UUID that the router generates for each new batch.")
    batch.batch_id = batch.batch_id.lower()
    return batch


def read_events(body: bytes) -> list[ReportedEvent]:
    events: list[ReportedEvent] = _read(body, _Events, _RawEvents, {"events": ReportedEvent}).events
    return events


def read_feedback(body: bytes) -> list[FeedbackItem]:
    items: list[FeedbackItem] = _read(body, _Feedback, _RawFeedback, {"feedback": FeedbackItem}).feedback
    return items


def read_samples(body: bytes) -> list[SampledRequest]:
    inputs: list[SampledRequest] = _read(body, _Samples, _RawSamples, {"inputs": SampledRequest}).inputs
    return inputs


def _read(body: bytes, shape: type, raw: type, entries: Mapping[str, type]) -> Any:
    """Decode the body. Only if that fails, decode it again entry by entry to name each bad one.

    The first decoder stops at the first wrong value; the second may still find that the rest is not JSON.
    """
    try:
        try:
            return _decoders[shape].decode(body)
        except msgspec.ValidationError as error:
            problems = _piecewise(body, raw, entries)
            raise (
                refusal(next(iter(entries)), problems)
                if problems
                else InvalidInput(f"The body is not valid: {strictjson.in_words(error)}.")
            ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None


def _piecewise(body: bytes, raw: type, entries: Mapping[str, type]) -> list[Problem]:
    try:
        whole = _decoders[raw].decode(body)
    except msgspec.ValidationError as error:
        # A list that is too long is a matter of size: the router can send it in parts.
        kind = BodyTooLarge if str(error).startswith("Expected `array` of length <=") else InvalidInput
        raise kind(f"The body is not valid: {strictjson.in_words(error)}.") from None
    problems = []
    for member, item in entries.items():
        for index, piece in enumerate(getattr(whole, member) or ()):
            try:
                _decoders[item].decode(piece)
            except msgspec.DecodeError as error:
                message, _, path = strictjson.in_words(error).partition(" - at `$")
                problems.append(Problem(index, path.strip(".`"), message, member))
    return problems


def refusal(member: str, problems: Sequence[Problem]) -> InvalidInput:
    """Return the 422 that names each bad entry by its index. Its code is `too_old` if that is all that is wrong."""
    kind = TooOld if all(problem.message == TOO_OLD for problem in problems) else InvalidInput
    bad = len({(problem.list, problem.index) for problem in problems})
    return kind(
        f"{bad} of the {member} {plural_of(bad, 'is', 'are')} not valid; nothing was counted.",
        [asdict(problem) for problem in problems],
    )


def _is_uuid(text: str) -> bool:
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(
        character in "0123456789abcdefABCDEF" for part in parts for character in part
    )
