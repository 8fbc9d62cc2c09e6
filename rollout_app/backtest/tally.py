"""Sums over tasks, kept so that intervals can be drawn from them without keeping the tasks.

Tasks go round into at most `GROUPS` groups. Resampling whole groups of independent tasks is the bootstrap for sums of
groups; up to `GROUPS` tasks each is a group of its own, and it is the ordinary bootstrap (Efron 1979). A million tasks
cost as much memory as two thousand.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

GROUPS = 2_000
RESAMPLES = 1_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % bootstrap interval; all None where it can't be given."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Tally:
    """One policy's (or one model's) sums by group.

    n, successes        tasks with a known outcome under everything that is compared, and the good ones
    priced, good, cost  the same tasks where every cost is known, too: their number, successes and nano-USD
    """

    __slots__ = ("cost", "good", "n", "priced", "successes")

    def __init__(self) -> None:
        self.n = [0] * GROUPS
        self.successes = [0] * GROUPS
        self.priced = [0] * GROUPS
        self.good = [0] * GROUPS
        self.cost = [0] * GROUPS

    def add(self, group: int, success: bool, cost_nusd: int | None) -> None:
        """One task. `cost_nusd` None: left out of every figure of cost."""
        self.n[group] += 1
        self.successes[group] += success
        if cost_nusd is not None:
            self.priced[group] += 1
            self.good[group] += success
            self.cost[group] += cost_nusd

    def totals(self, groups: Sequence[int] | None = None) -> "TaskSums":
        """The sums over the groups, each as often as it is named; None: each once."""
        columns = (self.n, self.successes, self.priced, self.good, self.cost)
        if groups is None:
            return TaskSums(*map(sum, columns))
        return TaskSums(*(sum(map(column.__getitem__, groups)) for column in columns))


@dataclass(frozen=True, slots=True)
class TaskSums:
    """Sums of a tally, and the figures made of them. Costs in nano-USD."""

    n: int
    successes: int
    priced: int
    good: int
    cost: int

    @property
    def accuracy(self) -> float | None:
        """Successes / tasks."""
        return self.successes / self.n if self.n else None

    @property
    def cost_per_task(self) -> float | None:
        """Nano-USD."""
        return self.cost / self.priced if self.priced else None

    @property
    def cost_per_success(self) -> float | None:
        """Nano-USD; None without a success."""
        return self.cost / self.good if self.good else None


Figure = Callable[[Sequence[TaskSums]], float | None]


def intervals(tallies: Sequence[Tally], figures: Sequence[Figure], *, seed: int = 1) -> list[Interval]:
    """Each figure of the tallies with its bootstrap interval; the same resamples serve all, so that differences are
    paired. A figure that can't be given in more than a twentieth of the resamples has no interval."""
    used = sum(1 for tasks in zip(*(tally.n for tally in tallies), strict=True) if any(tasks))
    whole = [tally.totals() for tally in tallies]
    values = [figure(whole) for figure in figures]
    if used < 2:
        return [Interval(value) for value in values]
    chance = random.Random(seed)  # noqa: S311 — to be repeated, not secret
    drawn: list[list[float]] = [[] for _ in figures]
    places = range(used)  # groups fill in order, so the first `used` are those with tasks
    for _ in range(RESAMPLES):
        groups = chance.choices(places, k=used)
        sums = [tally.totals(groups) for tally in tallies]
        for at, figure in enumerate(figures):
            if (value := figure(sums)) is not None:
                drawn[at].append(value)
    return [_interval(value, sorted(found)) for value, found in zip(values, drawn, strict=True)]


def _interval(value: float | None, found: Sequence[float]) -> Interval:
    if value is None or len(found) < RESAMPLES * 0.95:
        return Interval(value)
    tail = (1 - LEVEL) / 2
    return Interval(
        value, found[int(tail * len(found))], found[min(len(found) - 1, int((1 - tail) * len(found)))]
    )
