"""The sums of one minute's outcomes of one route: the protocol's bucket, as plain integers and floats."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pointsman.reporting.histogram import Histogram
from pointsman.reporting.limits import OTHER, PARTS


def minute_text(minute: int) -> str:
    """Return a minute, counted since 1970, in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(minute * 60))


class BucketKey(NamedTuple):
    """The key of a bucket. `minute` is in whole minutes since 1970, UTC; `stage` is None outside a rollout."""

    minute: int
    workload: str
    rollout: str | None
    stage: int | None
    arm: str
    version: int
    endpoint: str
    rule: str
    model: str

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "minute": minute_text(self.minute)}


@dataclass(frozen=True, slots=True)
class Shadow:
    """The candidate's choice in shadow and the one that was served, by the policies' own names.

    Two policies may have different names for one catalogue model, hence `agreed`. Costs are None if unknown.
    """

    served: str
    candidate: str
    agreed: bool
    served_cost_nusd: int | None = None
    candidate_cost_nusd: int | None = None
    error: bool = False  # the candidate could not be evaluated
    whole: bool = False  # the candidate's cost includes its second stage


@dataclass(frozen=True, slots=True)
class Mirror:
    """The results of both arms' models for one mirrored task. Costs are None if unknown."""

    baseline_success: bool
    candidate_success: bool
    baseline_cost_nusd: int | None = None
    candidate_cost_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one task, over all its attempts.

    success             True, False, or None if it was not graded
    quality, confidence 0 … 1, None when unknown
    cost_nusd           nano-US-dollars of all attempts together, None when unknown
    latency_ms          until the final answer, None when unknown
    error               the kind of error with which the task ended (`timeout`, `rate_limited`, …), None if it was
                        answered
    models              every model that was asked, by the policy's own names
    differing           the route pair, "" if the two policies agree, None if unknown
    mirror_failed       the candidate's mirrored request gave no answer, or one too late
    mirror_braked       the mirrored request was skipped because of the brake
    """

    success: bool | None
    quality: float | None = None
    confidence: float | None = None
    cost_nusd: int | None = None
    latency_ms: float | None = None
    error: str | None = None
    escalations: int = 0
    fallbacks: int = 0
    retries: int = 0
    attempts: int = 1
    models: tuple[str, ...] = ()
    differing: str | None = None
    shadow: Shadow | None = None
    mirror: Mirror | None = None
    mirror_failed: bool = False
    mirror_braked: bool = False


@dataclass(slots=True)
class Moments:
    """n, Σx and Σx² of scores between 0 and 1."""

    n: int = 0
    sum: float = 0.0
    sum_sq: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        self.sum += value
        self.sum_sq += value * value

    def as_dict(self) -> dict[str, Any]:
        return {"n": self.n, "sum": self.sum, "sum_sq": self.sum_sq}


@dataclass(slots=True)
class MoneySums:
    """Σ, Σ² and Σ over successes of costs, as integers so that money adds up exactly."""

    sum: int = 0
    sum_sq: int = 0
    sum_on_success: int = 0

    def add(self, cost: int, success: bool) -> None:
        self.sum += cost
        self.sum_sq += cost * cost
        if success:
            self.sum_on_success += cost

    def as_dict(self) -> dict[str, Any]:
        # The sum of squares is used for a variance; as a float every JSON parser can read it.
        return {"sum": self.sum, "sum_sq": float(self.sum_sq), "sum_on_success": self.sum_on_success}


@dataclass(slots=True)
class CostSums:
    """Costs of the tasks with a known cost for every attempt, both uncapped and limited to the rollout's cap.

    graded   the same for tasks that have a grade, from which cost per success is computed
    """

    n: int = 0
    exact: MoneySums = field(default_factory=MoneySums)
    capped: MoneySums = field(default_factory=MoneySums)
    graded_n: int = 0
    graded_successes: int = 0
    graded: MoneySums = field(default_factory=MoneySums)
    graded_capped: MoneySums = field(default_factory=MoneySums)

    def add(self, cost: int, success: bool | None, cap: int | None) -> None:
        cut = cost if cap is None else min(cost, cap)
        self.n += 1
        self.exact.add(cost, success is True)
        self.capped.add(cut, success is True)
        if success is not None:
            self.graded_n += 1
            self.graded_successes += success
            self.graded.add(cost, success)
            self.graded_capped.add(cut, success)

    def as_dict(self, tasks: int) -> dict[str, Any]:
        """Return the protocol's form. `graded` is omitted if all `tasks` have both a cost and a grade."""
        sums = {"n": self.n, **self.exact.as_dict(), "capped": self.capped.as_dict()}
        if self.graded_n == tasks:
            return sums
        return {
            **sums,
            "graded": {
                "n": self.graded_n,
                "successes": self.graded_successes,
                **self.graded.as_dict(),
                "capped": self.graded_capped.as_dict(),
            },
        }


@dataclass(slots=True)
class DifferingSums:
    """The sums of the tasks of one route pair."""

    successes: int = 0
    failures: int = 0
    ungraded: int = 0
    costs: CostSums = field(default_factory=CostSums)

    def add(self, outcome: Outcome, cap: int | None) -> None:
        self.successes += outcome.success is True
        self.failures += outcome.success is False
        self.ungraded += outcome.success is None
        if outcome.cost_nusd is not None:
            self.costs.add(outcome.cost_nusd, outcome.success, cap)

    def as_dict(self) -> dict[str, Any]:
        tasks = self.successes + self.failures + self.ungraded
        counts = {"successes": self.successes, "failures": self.failures, "ungraded": self.ungraded}
        return {"tasks": tasks, **counts, "cost_nusd": self.costs.as_dict(tasks)}


def _no_shadow() -> dict[str, int]:
    names = (
        "decisions",
        "agreed",
        "candidate_cost_nusd",
        "baseline_cost_nusd",
        "candidate_priced",
        "baseline_priced",
    )
    return dict.fromkeys(names, 0)


def _no_mirror() -> dict[str, int]:
    ends = ("n", "both", "only_candidate", "only_baseline", "neither")
    return {**dict.fromkeys(ends, 0), "candidate_cost_nusd": 0, "baseline_cost_nusd": 0}


@dataclass(slots=True)
class Bucket:
    """A bucket's sums. `escalations`, `fallbacks` and `retries` count tasks with at least one, like their guardrails.

    `models` counts the tasks in which each model was asked; with escalations they add up to more than `tasks`.
    """

    tasks: int = 0
    successes: int = 0
    failures: int = 0
    ungraded: int = 0
    errors: int = 0
    escalations: int = 0
    fallbacks: int = 0
    retries: int = 0
    attempts: int = 0
    quality: Moments = field(default_factory=Moments)
    confidence: Moments = field(default_factory=Moments)
    costs: CostSums = field(default_factory=CostSums)
    cost_histogram: Histogram = field(default_factory=Histogram)
    latency: Histogram = field(default_factory=Histogram)
    models: dict[str, int] = field(default_factory=dict)
    errors_by_kind: dict[str, int] = field(default_factory=dict)
    routes: dict[str, int] = field(default_factory=dict)
    shadow: dict[str, int] = field(default_factory=_no_shadow)
    mirror: dict[str, int] = field(default_factory=_no_mirror)
    compared: int = 0  # tasks for which it is known whether the policies differ
    differing: dict[str, DifferingSums] = field(default_factory=dict)

    def add(self, outcome: Outcome, cap: int | None) -> None:
        """Add one task. `cap` is the rollout's `cost_cap_nusd`."""
        self._count(outcome)
        if outcome.quality is not None:
            self.quality.add(outcome.quality)
        if outcome.confidence is not None:
            self.confidence.add(outcome.confidence)
        if outcome.cost_nusd is not None:
            self.costs.add(outcome.cost_nusd, outcome.success, cap)
            self.cost_histogram.record(outcome.cost_nusd)
        if outcome.differing is not None:
            self._add_differing(outcome.differing, outcome, cap)
        if outcome.latency_ms is not None:
            self.latency.record(outcome.latency_ms)
        if outcome.shadow is not None:
            self._add_shadow(outcome.shadow)
        if outcome.mirror is not None:
            self._add_mirror(outcome.mirror)
        # Omitted if zero: an older control plane does not know these counts.
        if outcome.mirror_failed:
            _bump(self.mirror, "failed")
        if outcome.mirror_braked:
            _bump(self.mirror, "braked")

    def _count(self, outcome: Outcome) -> None:
        self.tasks += 1
        self.successes += outcome.success is True
        self.failures += outcome.success is False
        self.ungraded += outcome.success is None
        self.escalations += outcome.escalations > 0
        self.fallbacks += outcome.fallbacks > 0
        self.retries += outcome.retries > 0
        self.attempts += outcome.attempts
        for model in dict.fromkeys(outcome.models):
            _bump(self.models, model)
        if outcome.error is not None:
            self.errors += 1
            _bump(self.errors_by_kind, outcome.error)

    def _add_differing(self, pair: str, outcome: Outcome, cap: int | None) -> None:
        self.compared += 1
        if not pair:
            return
        if pair not in self.differing and len(self.differing) >= PARTS:
            pair = OTHER
        self.differing.setdefault(pair, DifferingSums()).add(outcome, cap)

    def _add_shadow(self, shadow: Shadow) -> None:
        self.shadow["decisions"] += 1
        self.shadow["agreed"] += shadow.agreed
        if shadow.error:
            _bump(self.shadow, "evaluation_errors")
        _bump(self.routes, f"{shadow.served}>{shadow.candidate}")
        self.shadow["baseline_priced"] += shadow.served_cost_nusd is not None
        self.shadow["candidate_priced"] += shadow.candidate_cost_nusd is not None
        if shadow.whole:
            _bump(self.shadow, "candidate_whole")
        # Both or neither: sums over different tasks for the two arms would not be comparable.
        if shadow.served_cost_nusd is not None and shadow.candidate_cost_nusd is not None:
            self.shadow["baseline_cost_nusd"] += shadow.served_cost_nusd
            self.shadow["candidate_cost_nusd"] += shadow.candidate_cost_nusd

    def _add_mirror(self, mirror: Mirror) -> None:
        ends = {
            (True, True): "both",
            (True, False): "only_baseline",
            (False, True): "only_candidate",
            (False, False): "neither",
        }
        self.mirror["n"] += 1
        self.mirror[ends[mirror.baseline_success, mirror.candidate_success]] += 1
        if mirror.baseline_cost_nusd is not None and mirror.candidate_cost_nusd is not None:  # as in shadow
            self.mirror["baseline_cost_nusd"] += mirror.baseline_cost_nusd
            self.mirror["candidate_cost_nusd"] += mirror.candidate_cost_nusd

    def as_dict(self, key: BucketKey) -> dict[str, Any]:
        """Return the protocol's bucket."""
        counts = ("tasks", "successes", "failures", "ungraded", "errors")
        attempts = ("escalations", "fallbacks", "retries", "attempts")
        # If known only for some tasks, the others would seem to agree; then it is omitted.
        known = self.compared == self.tasks
        pairs = {pair: sums.as_dict() for pair, sums in sorted(self.differing.items())}
        return {
            **key.as_dict(),
            **{name: getattr(self, name) for name in (*counts, *attempts)},
            "quality": self.quality.as_dict(),
            "confidence": self.confidence.as_dict(),
            "cost_nusd": {**self.costs.as_dict(self.tasks), "histogram": self.cost_histogram.as_dict()},
            "latency_ms": self.latency.as_dict(),
            "models": _sorted(self.models),
            "errors_by_kind": _sorted(self.errors_by_kind),
            "shadow": {**self.shadow, "routes": _sorted(self.routes)},
            "mirror": dict(self.mirror),
            **({"differing": pairs} if known else {}),
        }


def _bump(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
