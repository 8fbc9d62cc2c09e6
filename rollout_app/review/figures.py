"""Rates and costs of some sums, as the API gives them. Pure."""

from collections.abc import Mapping
from typing import Any

from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.engine.diagnosis.figures import NOTHING, ratio

MOST_ROWS = 500  # of a breakdown that are listed; the others are in the totals

_RATES = {"error": "errors", "escalation": "escalations", "fallback": "fallbacks", "retry": "retries"}


def figures(sums: OutcomeSums, of: int | None = None) -> dict[str, Any]:
    """Money in nano-USD, shares 0 … 1. None where there is nothing to divide by. `of`: tasks that a share is of."""
    return {
        "tasks": sums.tasks,
        "share": ratio(sums.tasks, sums.tasks if of is None else of),
        "success": sums.success,
        "ungraded": sums.ungraded,
        "unpriced": sums.unpriced,
        "cost_nusd": sums.cost,
        "cost_per_task_nusd": sums.cost_per_task,
        "cost_per_success_nusd": sums.cost_per_success,
        "quality": ratio(sums.quality, sums.quality_n),
        "confidence": ratio(sums.confidence, sums.confidence_n),
        "attempts_per_task": ratio(sums.attempts, sums.tasks),
        **{name: ratio(getattr(sums, count), sums.tasks) for name, count in _RATES.items()},
    }


def breakdown(
    key: str, now: Mapping[Any, OutcomeSums], before: Mapping[Any, OutcomeSums]
) -> list[dict[str, Any]]:
    """One row for each value of `key`, most tasks first, with its share and what it was before."""
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
