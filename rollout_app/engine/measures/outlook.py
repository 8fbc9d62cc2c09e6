"""Forecast how many more tasks an advance takes, by extrapolating the evidence so far. For display only.

A difference seen on few tasks is mostly chance, so the forecast does not extrapolate all of it: it is shrunk by its
standard error. The design effect of sticky units grows with the tasks of each unit. At a large share, each candidate
task carries less information than at a small one.
"""

import math
from collections.abc import Iterable

from rollout_app.engine.measures.base import Conditions, Measure
from rollout_app.engine.stats.combine import LOG_SAFE
from rollout_app.engine.values import replace, value

_FURTHEST = 4_096.0  # multiple of the tasks so far; beyond it, a forecast would be a guess
_CLOSE = 0.05  # relative precision of the answer, which is rounded anyway


@value(frozen=True, slots=True)
class Pace:
    """How future tasks compare with those so far.

    dilution  how many future tasks carry as much information as one task so far
    least     candidate tasks of two windows, the shortest forecast: one window can undo nearly sufficient evidence
    """

    dilution: float = 1.0
    least: int = 0


def pace_of(arms: Iterable[tuple[int, int]], share: float, window: float) -> Pace:
    """Return the pace, given the (candidate, baseline) tasks by stage.

    share   the present share (0 … 1)
    window  the number of candidate tasks in one window

    n candidate tasks carry as much information as n (1 - share) of them compared with a baseline without noise. Early
    evidence keeps its effect, so the square root of the ratio fits better than the ratio (benchmarks/outlook.py).
    """
    known = [(nt, nc) for nt, nc in arms if nt]
    told, n = sum(nt * nc / (nt + nc) for nt, nc in known), sum(nt for nt, _ in known)
    dilution = math.sqrt(told / n / (1 - share)) if told and share < 1 else 1.0
    return Pace(dilution, math.ceil(2 * window))


def needed_tasks(measure: Measure, margin: float, conditions: Conditions, at_least: int = 0) -> int | None:
    """Estimate how many more candidate tasks it takes until the guardrail is safe at `margin`. None: unknown.

    `at_least` is the number that another guardrail needs anyway. If it is sufficient, it is returned at once.
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
    """Return the design effect after more tasks of (partly) the same units: its excess over 1 grows with them."""
    return 1 + (deff - 1) * math.sqrt(1 + stretch)
