"""What a change of cost looks like once each task's cost is capped, and back.

Costs are capped per task so that one huge task decides nothing. But a candidate that makes every task dearer
by a tenth moves the *capped* mean by less, because the tasks above the cap can't rise: a test of capped
figures against "a tenth" would see too little harm and promise too much safety. So the margin is translated:
the baseline's own costs, scaled and capped, say what a factor looks like.

Exact for a change of scale. A change that falls on the dearest tasks alone hides under the cap; the uncapped
ratio and the tail guardrails are there for it.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter

Curve = tuple[tuple[float, float], ...]

_FACTORS = (
    0.1,
    0.25,
    0.5,
    0.7,
    0.8,
    0.9,
    1.0,
    1.05,
    1.1,
    1.15,
    1.25,
    1.4,
    1.7,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    7.0,
    10.0,
)


def curve(values: Iterable[tuple[float, float]], cap: float) -> Curve:
    """(true factor, capped factor) on a grid, from (cost, how many tasks) of the baseline; () without any."""
    values = [(cost, times) for cost, times in values if cost > 0 and times > 0]

    def capped(factor: float) -> float:
        return sum(min(cost * factor, cap) * times for cost, times in values)

    unchanged = capped(1.0)
    return tuple((factor, capped(factor) / unchanged) for factor in _FACTORS) if unchanged > 0 else ()


def capped_factor(curve: Curve, factor: float) -> float:
    """What a true `factor` (> 0) comes to once capped; itself where nothing is capped."""
    return _read(curve, 0, 1, factor)


def uncapped_factor(curve: Curve, factor: float) -> float:
    """The true factor behind a capped one."""
    return _read(curve, 1, 0, factor)


def _read(curve: Curve, of: int, to: int, x: float) -> float:
    """What lies at x, by straight lines between logarithms; beyond the grid in proportion to its end."""
    if not curve:
        return x
    i = bisect_left(curve, x, key=itemgetter(of))
    if i == 0 or i == len(curve):
        end = curve[min(i, len(curve) - 1)]
        return end[to] * x / end[of]
    before, after = curve[i - 1], curve[i]
    x0, x1, y0, y1 = before[of], after[of], before[to], after[to]
    if x1 <= x0:
        return y0
    return y0 * math.pow(y1 / y0, math.log(x / x0) / math.log(x1 / x0))
