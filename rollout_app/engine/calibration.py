"""Measure the baseline before a rollout: the reference for margins, tails and caps. Pure.

The reference is fixed once it rests on enough outcomes. If it moved with the data, the margin would drift along with
the candidate.
"""

import math
from collections.abc import Iterable, Mapping

from pointsman.reporting.histogram import PER_DOUBLING, Histogram, index, middle, upper_edge
from rollout_app.engine.evidence import ArmSums, Group, Stage
from rollout_app.engine.metrics import RATIOS, Metric, count, moments
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.capped import Curve, curve
from rollout_app.engine.stats.cells import Halves
from rollout_app.engine.stats.deff import design_effect, unit_spread

MIN_OUTCOMES = 1_000  # graded tasks; with fewer, the rollout holds as `calibrating`
STICKY_OUTCOMES = 20_000  # for a plan that skips stages, if units may have rates of their own
TAIL_SHARE = 0.05  # share of the baseline's tasks that count as slow if no tolerance is declared
MECHANISM_TIME = 3  # factor on the time if the candidate adds an escalation, a retry or a fallback
COST_TAIL_SHARE = 0.01
# Costs are capped per task so that this share of the baseline's tasks exceeds the cap.
CAP_SHARES = (0.01, 0.02, 0.03, 0.05)
CAP_SPREAD = 3.0  # use the first share that leaves no more relative variance, else the last

_TAILS = frozenset({Metric.LATENCY_TAIL, Metric.COST_TAIL})


def outcomes_needed(stages: Iterable[Stage], *, sticky: bool) -> int:
    """Return how many graded baseline outcomes a plan needs before it leaves shadow or a percentage."""
    stages = tuple(stages)
    if sticky and any(stage.skippable for stage in stages):
        return STICKY_OUTCOMES
    return round(MIN_OUTCOMES / max((stage.tolerance for stage in stages), default=1.0))


def calibrate(
    arm: ArmSums,
    *,
    latency: Histogram,
    cost: Histogram,
    groups: Mapping[int, Group] | None = None,
    unit_is_request: bool = True,
    latency_tolerance_ms: float | None = None,
    mechanisms: Iterable[str] | None = None,
    candidate_mechanisms: Iterable[str] = (),
    cells: Mapping[int, Halves] | None = None,
) -> Reference:
    """Return the reference from the baseline's sums, histograms (milliseconds, nUSD) and hash groups.

    `latency_tolerance_ms`: the workload's declared tolerance; slower tasks are slow. `mechanisms`,
    `candidate_mechanisms`: which of escalate, retry and fallback the policies have; None: unknown. `cells`: graded
    tasks and failures by hash cell in two halves of the time. With fewer outcomes than `outcomes_needed`, the
    reference can be shown but not relied on.
    """
    rates = {}
    for metric in Metric:
        if metric not in RATIOS and metric not in _TAILS:
            n, x = count(metric, arm)
            rates[metric.value] = x / n if n else 0.0
    has = None if mechanisms is None else tuple(sorted(mechanisms))
    adds = has is not None and bool({*candidate_mechanisms} - {*has})
    latency_edge = _latency_edge(latency, latency_tolerance_ms, adds)
    cost_edge = _cost_tail_edge(cost)
    for metric, histogram, edge in (
        (Metric.LATENCY_TAIL, latency, latency_edge),
        (Metric.COST_TAIL, cost, cost_edge),
    ):
        over = histogram.count_above(edge) if edge is not None else 0
        rates[metric.value] = over / histogram.total if histogram.total else 0.0
    cap = _cap(cost)
    spend, quality = moments(Metric.COST_PER_SUCCESS, arm), moments(Metric.QUALITY, arm)
    used = [] if unit_is_request else sorted((groups or {}).items())
    return Reference(
        outcomes=arm.graded,
        rates=rates,
        cost_v=None if cap is None else _relative_v(cost, upper_edge(cap), arm),
        cost_per_success=spend.ratio or None,  # 0 means that it cost nothing, and no ratio to that exists
        quality_v=quality.relative_variance,
        mean_quality=quality.ratio,
        deff=design_effect([(g.tasks, g.failures) for _, g in used]),
        unit_spread=unit_spread([g.tasks for _, g in used]),
        latency_edge=latency_edge,
        cost_edge=cost_edge,
        cost_cap_nusd=None if cap is None else round(upper_edge(cap)),
        cost_curve=_cost_curve(cost, cap),
        cost_kept=1.0 if cap is None else _mean(cost, upper_edge(cap)) / _mean(cost, math.inf),
        cost_uncapped_v=_relative_v(cost, math.inf, arm),
        cost_quantiles=_cost_quantiles(cost),
        latency_declared=latency_tolerance_ms is not None,
        mechanisms=has,
        sticky=not unit_is_request,
        cells={} if unit_is_request else dict(cells or {}),
    )


def _latency_edge(latency: Histogram, tolerance_ms: float | None, adds_mechanism: bool) -> int | None:
    """Return the bucket above which a task is slow: the declared tolerance, or the edge of the baseline's slowest 5 %.

    A candidate that also asks a second model is slower by design. Without a declared tolerance it gets three times
    the time.
    """
    if tolerance_ms is not None and tolerance_ms > 0:
        return index(tolerance_ms)
    edge = latency.tail_edge(TAIL_SHARE)
    if edge is None or not adds_mechanism:
        return edge
    return edge + round(math.log2(MECHANISM_TIME) * PER_DOUBLING)


def _cost_tail_edge(cost: Histogram) -> int | None:
    """Return the bucket of twice the baseline's 99th percentile. The cap hides costs above it from the cost test."""
    edge = cost.tail_edge(COST_TAIL_SHARE)
    return None if edge is None else edge + PER_DOUBLING


def _cost_quantiles(cost: Histogram) -> tuple[int, int, int] | None:
    """Return the buckets above which about half, a quarter and a tenth of the baseline's costs lie."""
    half, quarter, tenth = (cost.tail_edge(share) for share in (0.5, 0.25, 0.1))
    if tenth is None:
        return None
    return (tenth if half is None else half), (tenth if quarter is None else quarter), tenth


def _cap(cost: Histogram) -> int | None:
    """Return the bucket at whose upper edge a task's cost is capped: the 99th percentile, or lower for heavy tails.

    The most expensive tasks dominate a sum of heavy-tailed costs. A lower cap detects a change of price in fewer
    tasks.
    """
    for share in CAP_SHARES:
        edge = cost.tail_edge(share)
        if edge is None or _spread(cost, upper_edge(edge)) <= CAP_SPREAD:
            break
    return edge


def _cost_curve(cost: Histogram, cap: int | None) -> Curve:
    if cap is None:
        return ()
    return curve(((middle(bucket), times) for bucket, times in cost.counts.items()), upper_edge(cap))


def _relative_v(cost: Histogram, ceiling: float, arm: ArmSums) -> float | None:
    """Return the relative variance per task of cost per success when each task's cost is capped at `ceiling`.

    The routers' own squares are of uncapped costs, and a single huge one would blunt the test from then on. Cost and
    success are treated as independent: this tunes the test but cannot make it invalid.
    """
    graded = arm.successes + arm.failures
    if not arm.successes or not cost.counts:
        return None
    success = arm.successes / graded
    return success * success * _spread(cost, ceiling) + success * (1 - success)


def _spread(cost: Histogram, ceiling: float) -> float:
    """Return the relative variance of costs capped at `ceiling`."""
    mean = _mean(cost, ceiling)
    square = sum(min(middle(bucket), ceiling) ** 2 * times for bucket, times in cost.counts.items())
    return square / cost.total / (mean * mean) - 1


def _mean(cost: Histogram, ceiling: float) -> float:
    """Return the mean of costs capped at `ceiling`. Always above 0, because no bucket holds 0 or less."""
    return sum(min(middle(bucket), ceiling) * times for bucket, times in cost.counts.items()) / cost.total
