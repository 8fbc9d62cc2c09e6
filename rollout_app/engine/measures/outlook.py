"""How many more tasks an advance takes: what was seen, stretched with the difference shrunk to none. For people only.

A difference seen on few tasks is mostly chance, and a forecast that lets it go on is off by as much. So of the
difference only as much goes on as its standard error leaves likely; and where tasks of one unit resemble each
other, the design effect grows with each unit's tasks.
"""

import math
from dataclasses import replace

from rollout_app.engine.measures.base import Conditions, Measure
from rollout_app.engine.stats.combine import LOG_SAFE

_FURTHEST = 4_096.0  # times what was seen: beyond, a forecast is a guess
_CLOSE = 0.05  # of the answer: it is a forecast, and rounded anyway


def needed_tasks(measure: Measure, margin: float, conditions: Conditions, at_least: int = 0) -> int | None:
    """About how many more candidate tasks until the guardrail is safe at `margin`; None where it can't be told.

    `at_least`: what another guardrail needs anyway; where that is enough, no less is looked for.
    """
    n = measure.tasks()[0]
    if not n:
        return None

    def short(stretch: float) -> float:
        grown = replace(conditions, deff=_grown(conditions.deff, stretch))
        return measure.safe_after(stretch, margin, grown) - LOG_SAFE

    low, high = 0.0, max(0.25, at_least / n)
    if at_least and short(at_least / n) >= 0:
        return at_least
    while not short(high) >= 0:
        low, high = high, 2 * high
        if high > max(_FURTHEST, 2 * at_least / n):
            return None
    while high - low > _CLOSE * high:
        middle = (low + high) / 2
        if short(middle) >= 0:
            high = middle
        else:
            low = middle
    return max(1, math.ceil(high * n))


def _grown(deff: float, stretch: float) -> float:
    """The design effect after more tasks of (partly) the same units: half of what it exceeds 1 by grows with them."""
    return 1 + (deff - 1) * math.sqrt(1 + stretch)
