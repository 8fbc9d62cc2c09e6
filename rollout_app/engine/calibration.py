"""The baseline before the rollout, frozen: what margins, tails and caps are measured from. Pure.

Frozen once, because a reference that moves with the data would let the margin drift after the candidate.
"""

import math
from collections.abc import Mapping

from pointsman.reporting.histogram import Histogram, middle, upper_edge
from rollout_app.engine.evidence import ArmSums, Group
from rollout_app.engine.metrics import RATIOS, Metric, count, moments
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.capped import Curve, curve
from rollout_app.engine.stats.deff import design_effect, unit_spread

MIN_OUTCOMES = 1_000  # graded tasks; fewer, and the rollout holds: calibrating
TAIL_SHARE = 0.05
CAP_SHARES = (0.01, 0.02, 0.03, 0.05)  # a task's cost is capped so that this share of the baseline's is cut:
CAP_SPREAD = 3.0  # the first that leaves no more relative variance than this, else the last

_TAILS = frozenset({Metric.LATENCY_TAIL, Metric.COST_TAIL})


def calibrate(
    arm: ArmSums,
    *,
    latency: Histogram,
    cost: Histogram,
    groups: Mapping[int, Group] | None = None,
    unit_is_request: bool = True,
) -> Reference:
    """The reference from the baseline's sums, histograms (milliseconds, nUSD) and hash groups.

    With fewer than MIN_OUTCOMES it can be looked at, not relied on: `Reference.outcomes` says how many there
    were.
    """
    rates = {}
    for metric in Metric:
        if metric not in RATIOS and metric not in _TAILS:
            n, x = count(metric, arm)
            rates[metric.value] = x / n if n else 0.0
    latency_edge, cost_edge = latency.tail_edge(TAIL_SHARE), cost.tail_edge(TAIL_SHARE)
    for metric, histogram, edge in (
        (Metric.LATENCY_TAIL, latency, latency_edge),
        (Metric.COST_TAIL, cost, cost_edge),
    ):
        rates[metric.value] = histogram.count_above(edge) / histogram.total if edge is not None else 0.0
    cap = _cap(cost)
    spend, quality = moments(Metric.COST_PER_SUCCESS, arm), moments(Metric.QUALITY, arm)
    used = sorted((groups or {}).items())
    return Reference(
        outcomes=arm.successes + arm.failures,
        rates=rates,
        cost_v=None if cap is None else _relative_v(cost, upper_edge(cap), arm),
        cost_per_success=spend.ratio or None,  # 0: no cost was reported
        quality_v=quality.relative_variance,
        mean_quality=quality.ratio,
        deff=1.0 if unit_is_request else design_effect([(g.tasks, g.failures) for _, g in used]),
        unit_spread=0.0 if unit_is_request else unit_spread([g.tasks for _, g in used]),
        latency_edge=latency_edge,
        cost_edge=cost_edge,
        cost_cap_nusd=None if cap is None else round(upper_edge(cap)),
        cost_curve=_cost_curve(cost, cap),
        cost_kept=1.0 if cap is None else _mean(cost, upper_edge(cap)) / _mean(cost, math.inf),
        cost_uncapped_v=_relative_v(cost, math.inf, arm),
    )


def _cap(cost: Histogram) -> int | None:
    """The bucket at whose upper edge a task's cost is cut: the 99th percentile, or lower if tails are heavy.

    A sum of heavy-tailed costs is ruled by its few dearest tasks, and cutting more of them tells a change of
    price in fewer tasks.
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
    """The relative variance per task of cost per success when each task's cost is cut at `ceiling`.

    The routers' own squares are of uncapped costs here, and a single huge one would make the test dull for
    all that follows. Cost and success are taken as unrelated: this tunes the test and can't make it wrong.
    """
    graded = arm.successes + arm.failures
    if not arm.successes or not cost.counts:
        return None
    success = arm.successes / graded
    return success * success * _spread(cost, ceiling) + success * (1 - success)


def _spread(cost: Histogram, ceiling: float) -> float:
    """The relative variance of costs cut at `ceiling`."""
    mean = _mean(cost, ceiling)
    square = sum(min(middle(bucket), ceiling) ** 2 * times for bucket, times in cost.counts.items())
    return square / cost.total / (mean * mean) - 1


def _mean(cost: Histogram, ceiling: float) -> float:
    """Above 0, as there is no bucket for 0 or less."""
    return sum(min(middle(bucket), ceiling) * times for bucket, times in cost.counts.items()) / cost.total
