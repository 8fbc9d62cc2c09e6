"""The evidence over time, relative to what is needed to decide, at each evaluation that changed a verdict.
Reads only.
"""

import math
from collections.abc import Mapping
from typing import Any

from rollout_app.console.charts import LineChart, Point
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, LOG_SAFE
from rollout_app.models import Rollout, VerdictRecord

_SHOWN = 1_000  # verdicts: about a hundred evaluations
_SAFE, _HARM = "that it is safe (the slowest guardrail)", "that it does harm (the strongest guardrail)"


def evidence_chart(rollout: Rollout) -> LineChart:
    """Return the evidence over time in percent of what decides: at 100 the rollout advances or rolls back.

    Verdicts are stored when one changes, so the lines are steps between changes.
    """
    rows = VerdictRecord.objects.filter(rollout=rollout).order_by("-evaluation", "guardrail")
    by_evaluation: dict[int, list[VerdictRecord]] = {}
    for row in rows[:_SHOWN]:
        by_evaluation.setdefault(row.evaluation, []).append(row)
    safe: list[Point] = []
    harm: list[Point] = []
    for _, verdicts in sorted(by_evaluation.items()):
        at = verdicts[0].at.timestamp()
        gating = [_part(row.data, "log_e_safe", LOG_SAFE) for row in verdicts if row.data.get("gates")]
        counted = [_part(row.data, "log_e_counted", LOG_ROLL_BACK, weighed=True) for row in verdicts]
        if gating:
            safe.append((at, min(gating)))
        harm.append((at, max(counted)))
    lines = {_SAFE: safe, _HARM: harm}
    styles = {_SAFE: "safe", _HARM: "harm"}
    return LineChart("evidence", "Evidence", "percent", lines, 100, "enough to decide", styles)


def _part(data: Mapping[str, Any], name: str, enough: float, *, weighed: bool = False) -> float:
    """Scale to 0 … 120; beyond what is needed, the distance does not matter."""
    if data.get(name) is None:
        return 0.0
    log_e, weight = float(data[name]), float(data.get("weight") or 1.0)
    return round(min(max((log_e + (math.log(weight) if weighed else 0.0)) / enough, 0.0), 1.2) * 100, 1)
