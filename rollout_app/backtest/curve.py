"""Cost and quality: what a router is worth between always asking the weak model and always the strong one.

PGR, APGR, CPT   Ong et al., RouteLLM, arXiv 2406.18665, section 3.2
AIQ              Hu et al., RouterBench, arXiv 2403.12031, section 3
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

RANDOM_ORDERS = 200
_ROUNDING = 1e-6  # of a sum of mean gains; the gap itself is a whole number
_RANDOM_TASKS = 4_000_000  # in all orders together: with more tasks, the orders differ less


@dataclass(frozen=True, slots=True)
class Point:
    """One way to route: its mean cost per task (nano-USD) and its share of good answers."""

    name: str
    cost: float
    quality: float


@dataclass(frozen=True, slots=True)
class RouterScore:
    """The value of a ranking of tasks. Shares 0 … 1; None if the weak model is as good as the strong one.

    apgr  the mean of PGR over all shares of strong calls
    cpt   the lowest share of strong calls that reaches a PGR of 50 % and of 80 %
    """

    apgr: float | None
    cpt_50: float | None
    cpt_80: float | None


def pgr(quality: float, weak: float, strong: float) -> float | None:
    """Return the performance gap recovered: 0 at the weak model's quality, 1 at the strong one's."""
    return (quality - weak) / (strong - weak) if strong > weak else None


def ranked(gains: Sequence[float]) -> RouterScore:
    """Score tasks in the order in which they would be given to the strong model.

    gains   strong success − weak success of each task: −1, 0 or 1, or the mean of tasks whose order is not known
    """
    gap = math.fsum(gains)
    if gap <= _ROUNDING:
        return RouterScore(None, None, None)
    recovered, area = 0.0, 0.0
    reached: dict[float, float] = {}
    for calls, gain in enumerate(gains, start=1):
        recovered += gain
        area += recovered
        for goal in (0.5, 0.8):
            if goal not in reached and recovered >= goal * gap - _ROUNDING:
                reached[goal] = calls / len(gains)
    # The mean over 0, 1, …, n strong calls by the trapezoid rule: half of the first (0) and of the last (the
    # gap).
    apgr = (area - gap / 2) / (len(gains) * gap)
    return RouterScore(apgr, reached[0.5], reached[0.8])


def by_score(gains: Sequence[int], scores: Sequence[float]) -> RouterScore:
    """Score an order with the lowest score first: a score says how likely the weak model is to succeed.

    Tasks with equal scores have no order among them, so each counts with their mean gain: the mean over all orders.
    """
    order = sorted(range(len(gains)), key=scores.__getitem__)
    shared: list[float] = []
    for _, tied in groupby(order, key=scores.__getitem__):
        group = [gains[at] for at in tied]
        shared += [sum(group) / len(group)] * len(group)
    return ranked(shared)


def random_router(gains: Sequence[int], *, seed: int = 1) -> RouterScore:
    """Return the mean over random orders, the value of a router that knows nothing."""
    if sum(gains) <= 0:
        return RouterScore(None, None, None)
    chance, shuffled = random.Random(seed), list(gains)  # noqa: S311 — must be repeatable, not secret
    found = []
    for _ in range(max(4, min(RANDOM_ORDERS, _RANDOM_TASKS // len(gains)))):
        chance.shuffle(shuffled)
        found.append(ranked(shuffled))
    columns = zip(*((score.apgr, score.cpt_50, score.cpt_80) for score in found), strict=True)
    return RouterScore(*(fmean(value for value in column if value is not None) for column in columns))


def hull(points: Sequence[Point]) -> list[Point]:
    """Return the points that no random mix of others beats: non-decreasing and concave (RouterBench's hull)."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if best and point.quality <= best[-1].quality:
            continue
        while len(best) > 1 and _rises_less(best[-2], best[-1], point):
            best.pop()
        best.append(point)
    return best


def _rises_less(a: Point, b: Point, c: Point) -> bool:
    """Return whether b lies on or below the line from a to c."""
    return (b.quality - a.quality) * (c.cost - a.cost) <= (c.quality - a.quality) * (b.cost - a.cost)


def mixed(frontier: Sequence[Point], cost: float) -> float | None:
    """Return the quality of the best random mix of frontier points at a mean cost; None below the lowest cost."""
    if not frontier or cost < frontier[0].cost:
        return None
    for left, right in zip(frontier, frontier[1:], strict=False):
        if cost <= right.cost:
            return left.quality + (right.quality - left.quality) * (cost - left.cost) / (
                right.cost - left.cost
            )
    return frontier[-1].quality


def aiq(points: Sequence[Point], low: float, high: float) -> float | None:
    """Return the mean quality of the points' hull over the costs low … high (nano-USD per task); None for an empty
    range.

    Below the cheapest point nothing can be bought, so the quality is 0.
    """
    frontier = hull(points)
    if not frontier or high <= low:
        return None
    edges = sorted({low, high, *(point.cost for point in frontier if low < point.cost < high)})
    area = 0.0
    for left, right in zip(edges, edges[1:], strict=False):
        if (before := mixed(frontier, left)) is not None and (after := mixed(frontier, right)) is not None:
            area += (before + after) / 2 * (right - left)
    return area / (high - low)
