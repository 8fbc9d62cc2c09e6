"""The outcome model and the doubly robust means of one policy, and each unit's share of their errors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import fsum

from rollout_app.backtest.doubly_robust.sums import FOLDS, GOOD, KNOWN, MATCHED, Key, ObservedSums, Slot

# The four figures that are estimated. Cost per success needs tasks for which both are known.
SUCCESS, COST, SUCCESS_OF_BOTH, COST_OF_BOTH = range(4)
# By figure: of what must be known (2: success, 1: cost, 3: both).
_KNOWN: tuple[tuple[int, ...], ...] = (
    (2, 3),
    (1, 3),
    (3,),
    (3,),
)
_IS_COST = (0, 1, 0, 1)
_SHRUNK = 20.0  # tasks: how strongly a small group is shrunk towards the larger one around it


@dataclass(frozen=True, slots=True)
class FittedMean:
    """One figure: its doubly robust mean, and what a task adds to the error of its unit.

    value       the mean
    successes, tasks   with a known outcome; `successes` is 0 for costs
    expected    by slot, (prediction − mean prediction) / tasks: every task adds this
    corrected   by slot, prediction + correction. A matched task with a known outcome y also adds
                weight × (y − corrected) / total
    total       of the weights
    """

    value: float
    successes: int
    tasks: int
    expected: list[float]
    corrected: list[float]
    total: float


class UnitErrors:
    """One unit's share of the error of each figure, and its weight by what is known (2: success, 1: cost, 3: both)."""

    __slots__ = ("errors", "weights")

    def __init__(self) -> None:
        self.errors = [0.0] * 4
        self.weights = [0.0] * 4


class PolicyFit:
    """The estimates of one policy from all its tasks, or from those that also tell about another policy.

    also   the other policy's bit in `Slot.seen_by`; 0: all tasks
    """

    def __init__(self, sums: ObservedSums, also: int = 0) -> None:
        self._sums = sums
        self.chosen = [not also or bool(slot.seen_by & also) for slot in sums.slots]
        slots = [slot for slot, chosen in zip(sums.slots, self.chosen, strict=True) if chosen]
        self.tasks = sum(slot.tasks for slot in slots)
        self.clipped = sum(slot.clipped for slot in slots)
        self.matched = [int(_summed(slots, (known,), 0)) for known in range(4)]  # by what is known
        means = [self._mean(figure, slots) for figure in (SUCCESS, COST)]
        # If success and cost are known of the same tasks, the figures over both are the same.
        same = not self.matched[1] and not self.matched[2]
        self.means = means + (
            means if same else [self._mean(figure, slots) for figure in (SUCCESS_OF_BOTH, COST_OF_BOTH)]
        )
        self._separate = 2 if same else 4

    @property
    def is_whole(self) -> bool:
        return all(self.chosen)

    def by_unit(self, part: int) -> dict[int, UnitErrors]:
        """Return the errors of the units in one part of the tasks."""
        units: dict[int, UnitErrors] = {}
        means = [(at, mean) for at, mean in enumerate(self.means[: self._separate]) if mean is not None]
        for named, slot, flags, weight, cost in self._sums.records(part):
            if not self.chosen[slot]:
                continue
            unit = units.get(named)
            if unit is None:
                unit = units[named] = UnitErrors()
            errors, known = unit.errors, flags >> KNOWN & 3
            for figure, mean in means:
                errors[figure] += mean.expected[slot]
                if flags & MATCHED and known in _KNOWN[figure]:
                    y = cost if _IS_COST[figure] else bool(flags & GOOD)
                    errors[figure] += weight * (y - mean.corrected[slot]) / mean.total
            if flags & MATCHED:
                unit.weights[known] += weight
        if self._separate < 4:
            for unit in units.values():
                unit.errors[2:] = unit.errors[:2]
        return units

    def _mean(self, figure: int, slots: Iterable[Slot]) -> FittedMean | None:
        """Return the doubly robust mean; None if no matched outcome is known.

        The correction is divided by the sum of observed weights (Hájek), not by the number of tasks. It stays correct
        if some outcomes are missing at random, even more of one arm than of the other.
        """
        slots, known, cost = list(slots), _KNOWN[figure], _IS_COST[figure]
        tasks = int(_summed(slots, known, 0))
        if not tasks:
            return None
        expects = _outcome_model(slots, known, 1 + cost)
        expected = [
            expects(slot) if chosen else 0.0
            for slot, chosen in zip(self._sums.slots, self.chosen, strict=True)
        ]
        average = fsum(mean * slot.tasks for mean, slot in self._chosen(expected)) / self.tasks
        total = _summed(slots, known, 3)
        predicted = fsum(mean * _summed((slot,), known, 3) for mean, slot in self._chosen(expected))
        correction = (_summed(slots, known, 4 + cost) - predicted) / total
        return FittedMean(
            value=average + correction,
            successes=0 if cost else int(_summed(slots, known, 1)),
            tasks=tasks,
            expected=[(mean - average) / self.tasks for mean in expected],
            corrected=[mean + correction for mean in expected],
            total=total,
        )

    def _chosen(self, values: list[float]) -> Iterable[tuple[float, Slot]]:
        every = zip(values, self._sums.slots, self.chosen, strict=True)
        return ((value, slot) for value, slot, chosen in every if chosen)


def _summed(slots: Iterable[Slot], known: Iterable[int], column: int) -> float:
    return fsum(sums[column] for slot in slots for at in known if (sums := slot.outcomes[at]) is not None)


def _outcome_model(slots: Iterable[Slot], known: Iterable[int], column: int) -> Callable[[Slot], float]:
    """Return a function that predicts a slot's mean outcome, from means by group without the slot's own fold."""
    groups: dict[Key, list[list[float]]] = {}
    for slot in slots:
        n, y = _summed((slot,), known, 0), _summed((slot,), known, column)
        if n:
            for key in ((), *slot.keys):
                sums = groups.setdefault(key, [[0.0, 0.0] for _ in range(FOLDS + 1)])
                for at in (slot.fold, FOLDS):
                    sums[at][0] += n
                    sums[at][1] += y

    def outside(key: Key, fold: int, wider: float, shrunk: float) -> float:
        sums = groups.get(key)
        if sums is None:
            return wider
        n, y = (sums[FOLDS][at] - sums[fold][at] for at in (0, 1))
        return (y + shrunk * wider) / (n + shrunk) if n + shrunk > 0 else wider

    def expects(slot: Slot) -> float:
        found = outside((), slot.fold, 0.0, 0.0)
        for key in slot.keys:
            found = outside(key, slot.fold, found, _SHRUNK)
        return found

    return expects
