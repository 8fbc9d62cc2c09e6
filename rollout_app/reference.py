"""The baseline before the rollout, frozen: what margins, tails and caps are measured from. Pure.

Frozen once, because a reference that moves with the data would let the margin drift after the candidate.
"""

from collections.abc import Mapping

from pointsman.histogram import Histogram, middle, upper_edge
from rollout_app.evidence import ArmSums, Group, Reference
from rollout_app.measures import RATIOS, Metric, count, moments
from rollout_app.stats.deff import design_effect, unit_spread

MIN_OUTCOMES = 1_000  # graded tasks; fewer, and the rollout holds: calibrating
TAIL_SHARE = 0.05
CAP_SHARE = 0.01  # a task's cost is capped at the baseline's 99th percentile

_TAILS = frozenset({Metric.LATENCY_TAIL, Metric.COST_TAIL})


def freeze(
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
    cap = cost.tail_edge(CAP_SHARE)
    spend, quality = moments(Metric.COST_PER_SUCCESS, arm), moments(Metric.QUALITY, arm)
    used = sorted((groups or {}).items())
    return Reference(
        outcomes=arm.successes + arm.failures,
        rates=rates,
        cost_v=_capped_v(cost, cap, arm),
        cost_per_success=spend.ratio,
        quality_v=quality.relative_variance,
        mean_quality=quality.ratio,
        deff=1.0 if unit_is_request else design_effect([(g.tasks, g.failures) for _, g in used]),
        unit_spread=0.0 if unit_is_request else unit_spread([g.tasks for _, g in used]),
        latency_edge=latency_edge,
        cost_edge=cost_edge,
        cost_cap_nusd=None if cap is None else round(upper_edge(cap)),
    )


def _capped_v(cost: Histogram, cap: int | None, arm: ArmSums) -> float | None:
    """The relative variance per task that cost per success will have once costs are capped.

    The routers' own squares are of uncapped costs here, and a single huge one would make the test dull for
    all that follows. Cost and success are taken as unrelated: this tunes the test and can't make it wrong.
    """
    graded = arm.successes + arm.failures
    if cap is None or not arm.successes:
        return None
    ceiling = upper_edge(cap)
    values = [(min(middle(bucket), ceiling), times) for bucket, times in cost.counts.items()]
    mean = sum(value * times for value, times in values) / cost.total
    square = sum(value * value * times for value, times in values) / cost.total
    success = arm.successes / graded
    return success * success * (square / (mean * mean) - 1) + success * (1 - success) if mean > 0 else None
