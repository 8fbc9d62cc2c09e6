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
from collections.abc import Iterable, Sequence

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
    return _read([true for true, _ in curve], [capped for _, capped in curve], factor)


def uncapped_factor(curve: Curve, factor: float) -> float:
    """The true factor behind a capped one."""
    return _read([capped for _, capped in curve], [true for true, _ in curve], factor)


def _read(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """ys at x, by straight lines between logarithms; beyond the grid in proportion to its end."""
    if not xs:
        return x
    i = bisect_left(xs, x)
    if i == 0 or i == len(xs):
        end = min(i, len(xs) - 1)
        return ys[end] * x / xs[end]
    (x0, x1), (y0, y1) = xs[i - 1 : i + 1], ys[i - 1 : i + 1]
    if x1 <= x0:
        return y0
    return y0 * math.pow(y1 / y0, math.log(x / x0) / math.log(x1 / x0))
