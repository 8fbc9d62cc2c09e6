"""judge(guardrail, what was seen) → Verdict. Pure.

Four verdicts, and the unknown holds: `no_data` and `inconclusive` never let a rollout advance.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from rollout_app.engine.metrics import (
    DEFAULT_V,
    RATIOS,
    Measure,
    Metric,
    RateBound,
    RateDifference,
    RatioBound,
    RatioChange,
)
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.combine import (
    ALPHA,
    LOG_ROLL_BACK,
    LOG_SAFE,
    RESTART_WEIGHTS,
    log_sum_exp,
    restart,
)
from rollout_app.engine.sufficient import Sums

METRICS = tuple(Metric)
RATE_CAP, RATIO_CAP = 0.20, 1.00  # no stage, however small, may bear more


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A figure, the harm that is accepted (`margin`), and its weight in the decision to roll back.

    margin: points as a fraction (0.02 = 2 points), or for ratios a fraction of the baseline's. With `bound`
    set, the guardrail is absolute: the rate, nUSD per success or mean quality that the candidate must keep
    to; margin is unused.
    """

    metric: Metric
    margin: float
    weight: float
    bound: float | None = None

    @property
    def name(self) -> str:
        return self.metric.value if self.bound is None else f"{self.metric.value}_bound"

    @property
    def cap(self) -> float:
        return RATIO_CAP if self.metric in RATIOS else RATE_CAP

    @property
    def gates(self) -> bool:
        """Whether it must pass before an advance. Of the cost tail nothing can be proven."""
        return self.metric is not Metric.COST_TAIL

    def as_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "margin": self.margin, "weight": self.weight, "bound": self.bound}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(Metric(data["metric"]), data["margin"], data["weight"], data.get("bound"))

    def measure(self, reference: Reference, shares: Iterable[float]) -> Measure:
        """How it is measured in a rollout that passes through `shares` (0 … 1)."""
        ratio, bound = self.metric in RATIOS, self.bound
        if not ratio:
            if bound is None:
                return RateDifference(self.metric, self.margin, self.cap, reference, shares)
            return RateBound(self.metric, bound, self.cap, reference)
        quality = self.metric is Metric.QUALITY
        v_ref = reference.quality_v if quality else reference.cost_v
        ref = reference.mean_quality if quality else reference.cost_per_success
        kind = RatioChange if bound is None else RatioBound
        return kind(
            metric=self.metric,
            threshold=self.margin if bound is None else bound,
            cap=self.cap,
            deff=reference.deff,
            v_ref=v_ref or DEFAULT_V,
            alpha_harm=ALPHA * self.weight,
            alpha_safe=ALPHA,
            curve=() if quality else reference.cost_curve,
            kept=reference.cost_kept,
            noise=1.0 if quality else reference.tail_noise,
            ref=ref,
        )

    def applies(self, reference: Reference) -> bool:
        """False where the baseline never showed such a figure: there is nothing to compare with."""
        match self.metric:
            case Metric.LATENCY_TAIL:
                return reference.latency_edge is not None
            case Metric.COST_TAIL:
                return reference.cost_edge is not None
            case Metric.COST_PER_SUCCESS:
                return reference.cost_per_success is not None or self.bound is not None
            case Metric.QUALITY:
                return reference.mean_quality is not None or self.bound is not None
        return True


DEFAULT_GUARDRAILS = (
    Guardrail(Metric.FAILURE, 0.02, 0.25),
    Guardrail(Metric.COST_PER_SUCCESS, 0.10, 0.20),
    Guardrail(Metric.ERROR, 0.01, 0.10),
    Guardrail(Metric.ESCALATION, 0.03, 0.10),
    Guardrail(Metric.FALLBACK, 0.01, 0.10),
    Guardrail(Metric.RETRY, 0.02, 0.10),
    Guardrail(Metric.LATENCY_TAIL, 0.025, 0.10),
    Guardrail(Metric.COST_TAIL, 0.025, 0.05),
)
_DEFAULTS = {guardrail.metric: guardrail for guardrail in DEFAULT_GUARDRAILS}
_CUSTOM_MARGIN, _CUSTOM_WEIGHT = 0.02, 0.10


def guardrails_for(overrides: Iterable[Mapping[str, Any]] = ()) -> tuple[Guardrail, ...]:
    """The default guardrails with a workload's own: {"metric", "enabled", "margin", "weight", "bound"}.

    None and missing mean the default. Weights are scaled to add up to 1: more, and the chance of a false
    rollback would exceed alpha. Raises ValueError for a metric that is not in METRICS or a weight or margin
    out of range.
    """
    chosen = {guardrail.name: guardrail for guardrail in DEFAULT_GUARDRAILS}
    for override in overrides:
        guardrail = _overridden(override)
        chosen.pop(guardrail.name, None)
        if override.get("enabled") is not False:
            chosen[guardrail.name] = guardrail
    total = sum(guardrail.weight for guardrail in chosen.values())
    if math.isclose(total, 1):
        return tuple(chosen.values())
    return tuple(replace(guardrail, weight=guardrail.weight / total) for guardrail in chosen.values())


def _overridden(override: Mapping[str, Any]) -> Guardrail:
    metric = Metric(override["metric"])
    default = _DEFAULTS.get(metric, Guardrail(metric, _CUSTOM_MARGIN, _CUSTOM_WEIGHT))
    margin, weight, bound = (override.get(key) for key in ("margin", "weight", "bound"))
    guardrail = Guardrail(
        metric,
        default.margin if margin is None else float(margin),
        default.weight if weight is None else float(weight),
        None if bound is None else float(bound),
    )
    if not guardrail.margin > 0 or not guardrail.weight > 0:
        raise ValueError(f"{guardrail.name}: margin and weight must be above 0")
    if bound is not None and not 0 < float(bound) < (math.inf if metric in RATIOS else 1):
        raise ValueError(f"{guardrail.name}: the bound {bound} is out of range")
    return guardrail


class VerdictResult(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence says of one guardrail, with all that is needed to compute it again."""

    name: str
    metric: Metric
    result: VerdictResult
    n_candidate: float
    n_baseline: float
    estimate: float | None  # harm counted up: points, fraction of the baseline's, or the absolute figure
    low: float | None  # for display, each side at 5 %
    high: float | None
    log_e_harm: float
    log_e_safe: float
    margin: float  # D, or the bound
    stage_margin: float  # what must be excluded before the next stage
    weight: float
    counted: bool  # an estimate reaches the margin, so its harm counts towards a rollback
    gates: bool  # must pass before an advance
    # about how many more candidate tasks until it passes; None: can't be told
    needed_tasks: int | None = None
    sums: tuple[tuple[int, dict[str, Any]], ...] = ()  # (stage, sums) for a recomputation
    log_e_counted: float = -math.inf  # ln E of the harm that counts
    counted_since: int | None = None  # the stage since which most of it was seen; None: since the start
    counted_estimate: float | None = None  # the estimate since then
    deff: float = 1.0  # the design effect that divides the evidence
    # what was judged: (stage, strata, first and last Unix minute)
    strata: tuple[tuple[int, int, int, int], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in _VERDICT_FIELDS}
        data["sums"] = [[stage, sums] for stage, sums in self.sums]
        data["strata"] = [list(judged) for judged in self.strata]
        if math.isinf(self.log_e_counted):
            data["log_e_counted"] = None  # JSON has no infinity
        return data


_VERDICT_FIELDS = tuple(field.name for field in fields(Verdict))


def judge(
    guardrail: Guardrail,
    measure: Measure,
    by_stage: Mapping[int, Sums],
    *,
    restarts: Sequence[int],
    next_share: float,
    gates: bool = True,
    forecast: bool = True,
) -> Verdict:
    """The verdict on one guardrail from its sums per stage.

    `restarts`: the up to three later stages from which harm is counted anew. `next_share` (0 … 1): the
    traffic that an advance would give the candidate. `forecast`: say how many more tasks it takes. What only a
    page or the record asks for comes by `detailed`.
    """
    sums, since = _since(measure, by_stage, restarts)
    start, unbegun = since[0], [0.0] * (_RESTARTS + 1 - len(since))
    log_e_harm = restart([*(part.log_e for part in since), *unbegun])
    log_e_counted = _counted(since)
    counted = max((part for part in since if part.reached), key=lambda part: part.log_e, default=None)
    margin = measure.margin_for(next_share)
    log_e_safe = measure.safe(sums, margin)
    n_candidate, n_baseline = measure.tasks(sums)
    result = VerdictResult.INCONCLUSIVE
    if start.estimate is None and log_e_safe < LOG_SAFE:
        result = VerdictResult.NO_DATA
    elif log_e_counted + math.log(guardrail.weight) >= LOG_ROLL_BACK:
        result = VerdictResult.FAIL
    elif log_e_safe >= LOG_SAFE:
        result = VerdictResult.PASS
    waits = result is VerdictResult.INCONCLUSIVE and gates and guardrail.gates
    needed = _needed_tasks(measure, sums, margin, log_e_safe) if forecast and waits else None
    return Verdict(
        guardrail.name, guardrail.metric, result, n_candidate, n_baseline, start.estimate, None, None,
        log_e_harm, log_e_safe, measure.threshold, margin, guardrail.weight, counted is not None, gates and
        guardrail.gates, needed, (), log_e_counted, counted.stage if counted else None,
        counted.estimate if counted else None, measure.deff,
    )  # fmt: skip


def detailed(verdict: Verdict, measure: Measure, by_stage: Mapping[int, Sums]) -> Verdict:
    """The verdict with its interval and sums: what a page shows, and what a record needs to be computed again."""
    total = measure.empty()
    for sums in by_stage.values():
        total.merge(sums)
    low, high = measure.interval(total) or (None, None)
    parts = tuple((stage, sums.as_dict()) for stage, sums in by_stage.items())
    return replace(verdict, low=low, high=high, sums=parts)


_RESTARTS = len(RESTART_WEIGHTS) - 1


@dataclass(frozen=True, slots=True)
class _Since:
    """Harm since one stage (None: since the start), and whether its own estimate reaches the margin."""

    stage: int | None
    log_e: float
    estimate: float | None
    reached: bool


def _since(
    measure: Measure, by_stage: Mapping[int, Sums], restarts: Sequence[int]
) -> tuple[Any, list[_Since]]:
    """The sums since the start, and what harm they show since then and since each restart that has begun."""
    if len(by_stage) == 1:  # nothing to add up, and since then is since the start
        [(stage, only)] = by_stage.items()
        whole = _harm(measure, only, None)
        again = _Since(stage, whole.log_e, whole.estimate, whole.reached)
        return only, [whole, again] if stage in restarts else [whole]
    total, since = measure.empty(), []
    for stage in sorted(by_stage, reverse=True):
        total.merge(by_stage[stage])
        if stage in restarts:
            since.append(_harm(measure, total, stage))
    return total, [_harm(measure, total, None), *since]


def _harm(measure: Measure, sums: Any, stage: int | None) -> _Since:
    estimate = measure.estimate(sums)
    reached = estimate is not None and measure.reached(estimate)
    return _Since(stage, measure.harm(sums), estimate, reached)


def _counted(since: Sequence[_Since]) -> float:
    """ln E of what counts towards a rollback: each part of the evidence while its own estimate reaches the
    margin.

    Leaving a part out only lowers E, so the chance of a false rollback stays bounded whatever the rule. One
    estimate over all stages would let good early ones hide what the later ones show.
    """
    weighed = zip(RESTART_WEIGHTS, since, strict=False)
    return log_sum_exp(math.log(weight) + part.log_e for weight, part in weighed if part.reached)


_FURTHEST = 512.0  # times what was seen: beyond, a forecast is a guess
_CLOSE = 0.02  # of the answer: it is rounded anyway


def _needed_tasks(measure: Measure, sums: Any, margin: float, log_e_safe: float) -> int | None:
    """How many more candidate tasks, if they go like those so far: the sums are stretched until they pass.

    ln E over the stretch starts at 0 and bends upwards or is straight, so the chord through two points crosses
    the threshold left of it, and a step past that crossing lies right of it.
    """
    n = measure.tasks(sums)[0]

    def log_e(stretch: float) -> float:
        return measure.safe(sums.scaled(stretch), margin) - LOG_SAFE

    low, below = 1.0, log_e_safe - LOG_SAFE
    high = min(LOG_SAFE / log_e_safe, _FURTHEST) if log_e_safe > 0 else _FURTHEST
    above = log_e(high)
    while above < 0:
        if high >= _FURTHEST or not n:
            return None
        low, below, high = high, above, min(2 * high, _FURTHEST)
        above = log_e(high)
    while above > _CLOSE * LOG_SAFE and high - low > _CLOSE * low:
        chord = low + (high - low) * -below / (above - below)
        middle = min(chord * (1 + _CLOSE / 2), (low + 3 * high) / 4)
        found = log_e(middle)
        if found < 0:
            low, below = middle, found
        else:
            high, above = middle, found
    return math.ceil((high - 1) * n)
