"""Rates and costs of some sums, as the API returns them. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.engine.diagnosis.compare import around
from rollout_app.engine.diagnosis.figures import NOTHING, ratio
from rollout_app.engine.stats.ratios import N_MIN

MOST_ROWS = 500  # listed rows of a breakdown; further ones count only in the totals

_RATES = {"error": "errors", "escalation": "escalations", "fallback": "fallbacks", "retry": "retries"}


def figures(sums: OutcomeSums, of: int | None = None) -> dict[str, Any]:
    """Return money in nano-USD and shares 0 … 1; None without a denominator, and for a cost or attempts
    that no task reported. `of`: the tasks that the share refers to. `mirror_cost_nusd`: of mirrored requests,
    which served nobody, and not part of `cost_nusd`; None if none has a cost, or if the sums were read without it.
    """
    low, high = cost_interval(sums)
    return {
        "tasks": sums.tasks,
        "share": ratio(sums.tasks, sums.tasks if of is None else of),
        "success": sums.success,
        "ungraded": sums.ungraded,
        "unpriced": sums.unpriced,
        "cost_nusd": sums.cost if sums.cost_n else None,
        "cost_per_task_nusd": sums.cost_per_task,
        "cost_per_success_nusd": sums.cost_per_success,
        "cost_per_success_low_nusd": low,
        "cost_per_success_high_nusd": high,
        "quality": ratio(sums.quality, sums.quality_n),
        "confidence": ratio(sums.confidence, sums.confidence_n),
        "attempts_per_task": ratio(sums.attempts, sums.tasks) if sums.attempts else None,
        **{name: ratio(getattr(sums, count), sums.tasks) for name, count in _RATES.items()},
        "mirror_cost_nusd": sums.mirror_cost or None,
    }


def cost_interval(sums: OutcomeSums) -> tuple[float | None, float | None]:
    """Return the 95 % interval of cost per success, valid at any look.

    None below `N_MIN` tasks, without a success, or if the sums were read without their squares, so that the variance
    is unknown.
    """
    cost, n = sums.cost_per_success, sums.both_n
    if cost is None or n < N_MIN or (sums.both_cost and not sums.both_cost_sq):
        return None, None
    if not cost:
        return cost, cost
    # At least 1/n, as in the engine: without failures, constant costs would give an interval without width.
    variance = max(sums.success_moments.relative_variance or 0.0, 1 / n)
    log = around(math.log(cost), variance * n / sums.both_successes**2)
    return math.exp(min(log.low, 700.0)), math.exp(min(log.high, 700.0))


def breakdown(
    key: str, now: Mapping[Any, OutcomeSums], before: Mapping[Any, OutcomeSums]
) -> list[dict[str, Any]]:
    """Return one row per value of `key`, most tasks first, with its share and its figures before."""
    ours, theirs = (sum(sums.tasks for sums in side.values()) for side in (now, before))
    rows: list[dict[str, Any]] = [
        {
            key: value,
            "now": figures(now.get(value, NOTHING), of=ours),
            "before": figures(before.get(value, NOTHING), of=theirs),
        }
        for value in {**now, **before}
    ]
    return sorted(rows, key=lambda row: (-row["now"]["tasks"], -row["before"]["tasks"], str(row[key])))[
        :MOST_ROWS
    ]
