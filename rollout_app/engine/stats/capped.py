"""Convert between changes of the true cost and changes of the cost with each task capped.

Costs are capped per task so that a single huge task cannot dominate. But if a candidate makes every task 10 % more
expensive, the *capped* mean rises by less, because the tasks above the cap cannot rise. A test of capped costs against
10 % would understate harm and overstate safety. So the margin is converted: the baseline's own costs, scaled by the
factor and capped, give the capped factor.

This is exact for a change of scale. A change of only the most expensive tasks is hidden by the cap; the uncapped ratio
and the tail guardrails cover it.
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
    """Return (true factor, capped factor) on a grid, given the baseline's (cost, number of tasks); () without costs."""
    values = [(cost, times) for cost, times in values if cost > 0 and times > 0]

    def capped(factor: float) -> float:
        return sum(min(cost * factor, cap) * times for cost, times in values)

    unchanged = capped(1.0)
    return tuple((factor, capped(factor) / unchanged) for factor in _FACTORS) if unchanged > 0 else ()


def capped_factor(curve: Curve, factor: float) -> float:
    """Convert a true `factor` (> 0) to the capped one. Without a curve they are equal."""
    return _read(curve, 0, 1, factor)


def uncapped_factor(curve: Curve, factor: float) -> float:
    """Convert a capped factor to the true one."""
    return _read(curve, 1, 0, factor)


def _read(curve: Curve, of: int, to: int, x: float) -> float:
    """Return the value at x: linear in the logarithms between points, proportional beyond the ends of the grid."""
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
