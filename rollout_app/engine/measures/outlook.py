"""How many more tasks an advance takes: what was seen, stretched with the difference shrunk to none. For people only.

A difference seen on few tasks is mostly chance, and a forecast that lets it go on is off by as much. So of the
difference only as much goes on as its standard error leaves likely; where tasks of one unit resemble each other, the
design effect grows with each unit's tasks; and at a large share a task of the candidate tells less than it did before.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rollout_app.engine.measures.base import Conditions, Measure
from rollout_app.engine.stats.combine import LOG_SAFE

_FURTHEST = 4_096.0  # times what was seen: beyond, a forecast is a guess
_CLOSE = 0.05  # of the answer: it is a forecast, and rounded anyway


@dataclass(frozen=True, slots=True)
class Pace:
    """How the tasks to come compare with those so far. `dilution`: how many more of them tell as much.

    `least`: candidate tasks of two windows; what is nearly shown is as often as not undone by the next one.
    """

    dilution: float = 1.0
    least: int = 0


def pace_of(arms: Iterable[tuple[int, int]], share: float, window: float) -> Pace:
    """From the tasks of candidate and baseline by stage, the present share (0 … 1), and a window's candidate tasks.

    n tasks of the candidate tell as much as n (1 - share) against a baseline without noise. What was seen early weighs
    on, so the square root fits better than the whole (benchmarks/outlook.py).
    """
    known = [(nt, nc) for nt, nc in arms if nt]
    told, n = sum(nt * nc / (nt + nc) for nt, nc in known), sum(nt for nt, _ in known)
    dilution = math.sqrt(told / n / (1 - share)) if told and share < 1 else 1.0
    return Pace(dilution, math.ceil(2 * window))


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
