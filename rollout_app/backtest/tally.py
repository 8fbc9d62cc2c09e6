"""Sums over tasks from which intervals can be computed without storing the tasks.

Tasks are distributed in turn over at most `GROUPS` groups. Resampling whole groups of independent tasks is the
bootstrap for sums of groups; up to `GROUPS` tasks, each is its own group, and it is the ordinary bootstrap (Efron
1979). A million tasks use as much memory as a few hundred.

With fewer than `FEW` successes or failures the bootstrap is too certain: of 2 good tasks out of 2 every resample is
good. Then a share's interval is Wilson's, and a cost per success has none. The same holds for the difference of two
shares with fewer than `FEW` tasks on which they differ.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

GROUPS = 400  # an interval from 400 groups is as wide as one from all tasks, to within a few per cent
RESAMPLES = 1_000
LEVEL = 0.95
FEW = 10  # successes, failures or differing tasks
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; None where unknown."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Tally:
    """The sums of one policy or model by group.

    n, successes        tasks with a known outcome under everything that is compared, and the good ones
    priced, good, cost  of these, tasks with every cost known: their number, successes and nano-USD
    scored, score       of these, tasks with every score (0 … 1) known: their number and the sum of the scores
    """

    __slots__ = ("cost", "good", "n", "priced", "score", "scored", "successes")

    def __init__(self) -> None:
        self.n = [0] * GROUPS
        self.successes = [0] * GROUPS
        self.priced = [0] * GROUPS
        self.good = [0] * GROUPS
        self.cost = [0] * GROUPS
        self.scored = [0] * GROUPS
        self.score = [0.0] * GROUPS

    def add(self, group: int, success: bool, cost_nusd: int | None, score: float | None = None) -> None:
        """Add one task. With `cost_nusd` None it is left out of all cost figures, without a score of the mean score."""
        self.n[group] += 1
        self.successes[group] += success
        if cost_nusd is not None:
            self.priced[group] += 1
            self.good[group] += success
            self.cost[group] += cost_nusd
        if score is not None:
            self.scored[group] += 1
            self.score[group] += score

    def totals(self, groups: Sequence[int] | None = None) -> "TaskSums":
        """Return the sums over the groups, each as often as it is listed; None: each once."""
        columns = (self.n, self.successes, self.priced, self.good, self.cost)
        if groups is None:
            once = TaskSums(*map(sum, columns))
            return replace(once, scored=sum(self.scored), score=math.fsum(self.score))
        return TaskSums(*(sum(map(column.__getitem__, groups)) for column in columns))


@dataclass(frozen=True, slots=True)
class TaskSums:
    """The sums of a tally and their figures. Costs in nano-USD."""

    n: int
    successes: int
    priced: int
    good: int
    cost: int
    scored: int = 0  # 0 in a resample: a mean score has no interval
    score: float = 0.0

    @property
    def mean_score(self) -> float | None:
        """The mean recorded score, 0 … 1."""
        return self.score / self.scored if self.scored else None

    @property
    def accuracy(self) -> float | None:
        """Successes / tasks."""
        return self.successes / self.n if self.n else None

    @property
    def cost_per_task(self) -> float | None:
        """In nano-USD."""
        return self.cost / self.priced if self.priced else None

    @property
    def cost_per_success(self) -> float | None:
        """In nano-USD; None without a success."""
        return self.cost / self.good if self.good else None


Figure = Callable[[Sequence[TaskSums]], float | None]


class Resamples:
    """Resamples shared by everything that is compared, so that differences are paired. Each tally is summed once.

    used  the number of groups with tasks; groups fill in order, so these are the first ones
    """

    def __init__(self, used: int, *, seed: int = 1) -> None:
        chance, places = random.Random(seed), range(used)  # noqa: S311 — must be repeatable, not secret
        self._draws = [chance.choices(places, k=used) for _ in range(RESAMPLES)] if used > 1 else []
        self._sums: dict[int, tuple[Tally, list[TaskSums]]] = {}

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> "Resamples":
        return cls(sum(1 for tasks in zip(*(tally.n for tally in tallies), strict=True) if any(tasks)))

    def sums(self, tally: Tally) -> list[TaskSums]:
        """Return the sums of each resample; empty for fewer than two groups."""
        if id(tally) not in self._sums:
            # Keep the tally alive: its `id` could be reused once the object is gone.
            self._sums[id(tally)] = tally, [tally.totals(groups) for groups in self._draws]
        return self._sums[id(tally)][1]


def intervals(
    tallies: Sequence[Tally], figures: Sequence[Figure], resamples: Resamples | None = None
) -> list[Interval]:
    """Return each figure with its bootstrap interval. No interval if it is undefined in more than 5 % of the
    resamples.
    """
    resamples = resamples or Resamples.of(tallies)
    whole = [tally.totals() for tally in tallies]
    resampled = list(zip(*map(resamples.sums, tallies), strict=True))
    found = [[value for sums in resampled if (value := figure(sums)) is not None] for figure in figures]
    return [_interval(figure(whole), sorted(drawn)) for figure, drawn in zip(figures, found, strict=True)]


def of_share(found: Interval, sums: TaskSums) -> Interval:
    """Return the interval of an accuracy: the bootstrap's, or Wilson's with few successes or failures."""
    if found.value is None or not _are_few(sums):
        return found
    return wilson(found.value, sums.n, _Z)


def of_difference(found: Interval, mine: TaskSums, other: TaskSums, differing: int) -> Interval:
    """Return the interval of a difference of accuracies.

    With few successes or failures it comes from both shares' intervals (Newcombe 1998, Statistics in Medicine 17:873,
    method 10), which is wider than necessary for paired tasks. With few `differing` tasks (only one of the two is
    right), whose resamples are too alike, it is that for paired tasks (Newcombe 1998, Statistics in Medicine 17:2635,
    method 10): no difference on 40 tasks leaves room for one on the next.
    """
    if found.value is None:
        return found
    if _are_few(mine) or _are_few(other):
        return _of_both(found.value, mine, other, 0.0)
    if differing < FEW:
        return _of_both(found.value, mine, other, _correlation(mine, other, differing))
    return found


def _of_both(difference: float, mine: TaskSums, other: TaskSums, correlation: float) -> Interval:
    p, q = (wilson(sums.successes / sums.n, sums.n, _Z) for sums in (mine, other))
    p_down, p_up = (p.value or 0) - (p.low or 0), (p.high or 0) - (p.value or 0)
    q_down, q_up = (q.value or 0) - (q.low or 0), (q.high or 0) - (q.value or 0)
    down = math.sqrt(max(0.0, p_down**2 + q_up**2 - 2 * correlation * p_down * q_up))
    up = math.sqrt(max(0.0, p_up**2 + q_down**2 - 2 * correlation * p_up * q_down))
    return Interval(difference, max(-1.0, difference - down), min(1.0, difference + up))


def _correlation(mine: TaskSums, other: TaskSums, differing: int) -> float:
    """Return the correlation of both outcomes over the tasks, with Newcombe's continuity correction."""
    both = (mine.successes + other.successes - differing) / 2
    neither = mine.n - differing - both
    excess = both * neither - (mine.successes - both) * (other.successes - both)
    failed = (mine.n - mine.successes) * (other.n - other.successes)
    return max(0.0, excess - mine.n / 2) / math.sqrt(mine.successes * other.successes * failed)


def of_costs(found: Interval, *compared: TaskSums) -> Interval:
    """Return the interval of a cost per success, or of its ratio; none with few successes."""
    return found if all(sums.good >= FEW for sums in compared) else Interval(found.value)


def _are_few(sums: TaskSums) -> bool:
    return min(sums.successes, sums.n - sums.successes) < FEW


def wilson(p: float, n: float, t: float) -> Interval:
    """Return the score interval of a share (Wilson 1927) with continuity correction (Newcombe 1998, Statistics in
    Medicine 17:857, method 4), which covers shares close to 0 or 1. `t`: the quantile; `n`: tasks.
    """
    middle, below = 2 * n * p + t * t, 2 * (n + t * t)
    low = (middle - 1 - t * math.sqrt(max(0.0, t * t - 2 - 1 / n + 4 * p * (n * (1 - p) + 1)))) / below
    high = (middle + 1 + t * math.sqrt(max(0.0, t * t + 2 - 1 / n + 4 * p * (n * (1 - p) - 1)))) / below
    return Interval(p, max(0.0, low) if p > 0 else 0.0, min(1.0, high) if p < 1 else 1.0)


def _interval(value: float | None, found: Sequence[float]) -> Interval:
    if value is None or len(found) < RESAMPLES * 0.95:
        return Interval(value)
    tail = (1 - LEVEL) / 2
    return Interval(
        value, found[int(tail * len(found))], found[min(len(found) - 1, int((1 - tail) * len(found)))]
    )
