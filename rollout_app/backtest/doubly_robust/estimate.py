"""The values of policies, and their changes compared with the first one, in one pass over the records of the tasks."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from rollout_app.backtest.doubly_robust import intervals
from rollout_app.backtest.doubly_robust.fit import (
    COST,
    COST_OF_BOTH,
    SUCCESS,
    SUCCESS_OF_BOTH,
    FittedMean,
    PolicyFit,
    UnitErrors,
)
from rollout_app.backtest.doubly_robust.intervals import ErrorSums, EstimatedMean, WeightSums
from rollout_app.backtest.doubly_robust.sums import PARTS, Observation, ObservedSums
from rollout_app.backtest.tally import Interval


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a policy over the tasks of the estimate. Cost in nano-USD.

    tasks, units      of the estimate
    matched           tasks served as the policy would have
    effective_units   the equivalent number of units with equal weight (Kish)
    ungraded, unpriced   among the matched tasks; not included in the means
    clipped           tasks whose propensity was below `CLIP`
    """

    tasks: int
    units: int
    matched: int
    effective_units: float
    ungraded: int
    unpriced: int
    clipped: int
    success: Interval = field(default_factory=lambda: Interval(None))
    cost_per_task: Interval = field(default_factory=lambda: Interval(None))
    cost_per_success: Interval = field(default_factory=lambda: Interval(None))


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One policy compared with another on the same tasks: success in points / 100, costs as fractions of the
    other's.
    """

    tasks: int
    success: Interval
    cost_per_task: Interval
    cost_per_success: Interval


def estimates(observed: Sequence[ObservedSums]) -> list[tuple[Value | None, ValueChange | None]]:
    """Return each policy's value, and its change compared with the first; None without tasks to estimate from.

    Bit n of a task's `seen_by` must say whether it tells about policy n.
    """
    whole = [_Policy(PolicyFit(sums)) for sums in observed]
    pairs: list[tuple[_Policy, _Policy] | None] = [None]
    for at, sums in enumerate(observed[1:], start=1):
        ours, theirs = PolicyFit(sums, also=1), PolicyFit(observed[0], also=1 << at)
        pairs.append((
            whole[at] if ours.is_whole else _Policy(ours), whole[0] if theirs.is_whole else _Policy(theirs)
        ))  # fmt: skip
    changes = [None if pair is None else _Change(*pair) for pair in pairs]
    policies = {id(one): one for one in (*whole, *(one for pair in pairs if pair for one in pair))}
    for part in range(PARTS):
        errors = {key: one.add(part) for key, one in policies.items()}
        for change in changes:
            if change is not None:
                change.add(errors[id(change.ours)], errors[id(change.theirs)])
    return [
        (one.value(), None if change is None else change.value())
        for one, change in zip(whole, changes, strict=True)
    ]


def value_of(observations: Iterable[Observation]) -> Value:
    """Return the value over these tasks, of which there is at least one. Unknown figures are None."""
    with ObservedSums() as sums:
        for one in observations:
            sums.add(one)
        ((value, _),) = estimates([sums])
    assert value is not None, "no tasks"  # noqa: S101 — a caller's mistake
    return value


def change_of(ours: Iterable[Observation], theirs: Iterable[Observation]) -> ValueChange:
    """Compare two policies on the same tasks in the same order, so that tasks hard for both do not widen the
    interval.
    """
    with ExitStack() as stack:
        first, second = (stack.enter_context(ObservedSums()) for _ in range(2))
        for one, other in zip(ours, theirs, strict=True):
            second.add(one, 3)
            first.add(other, 3)
        _, (_, change) = estimates([first, second])
    assert change is not None, "no tasks"  # noqa: S101 — a caller's mistake
    return change


class _Policy:
    """One policy's estimate while its units are added part by part."""

    def __init__(self, fit: PolicyFit) -> None:
        self.fit = fit
        self.ratio = _ratio(fit.means[SUCCESS_OF_BOTH], fit.means[COST_OF_BOTH])
        self._units = 0
        self._errors = [ErrorSums() for _ in range(3)]  # of success, cost, cost per success
        self._weights = [WeightSums() for _ in range(4)]  # of all matched, graded, priced, and both

    def add(self, part: int) -> dict[int, UnitErrors]:
        """Add the units of one part, and return them."""
        units = self.fit.by_unit(part)
        self._units += len(units)
        for unit in units.values():
            for sums, error in zip(self._errors, (*unit.errors[:2], self.ratio_error(unit)), strict=True):
                sums.add(error)
            neither, priced, graded, both = unit.weights
            if weight := neither + priced + graded + both:
                for kish, of in zip(self._weights, (weight, graded + both, priced + both, both), strict=True):
                    kish.add(of)
        return units

    def ratio_error(self, unit: UnitErrors) -> float:
        """Return the unit's share of the error of cost per success (delta method)."""
        success = self.fit.means[SUCCESS_OF_BOTH]
        if self.ratio is None or success is None:
            return 0.0
        return (unit.errors[COST_OF_BOTH] - self.ratio * unit.errors[SUCCESS_OF_BOTH]) / success.value

    def means(self) -> tuple[EstimatedMean | None, EstimatedMean | None, EstimatedMean | None]:
        """Return success, cost per task and cost per success."""
        success, cost = self.fit.means[SUCCESS], self.fit.means[COST]
        per_success = None
        if self.ratio is not None:
            per_success = EstimatedMean(self.ratio, self._errors[2], self._weights[3].effective)
        return (
            None if success is None else _estimated(success, self._errors[0], self._weights[1]),
            None if cost is None else _estimated(cost, self._errors[1], self._weights[2]),
            per_success,
        )

    def value(self) -> Value | None:
        if not self.fit.tasks:
            return None
        neither, priced, graded, both = self.fit.matched
        success, cost, per_success = self.means()
        return Value(
            tasks=self.fit.tasks,
            units=self._units,
            matched=neither + priced + graded + both,
            effective_units=self._weights[0].effective,
            ungraded=neither + priced,
            unpriced=neither + graded,
            clipped=self.fit.clipped,
            success=intervals.of_share(success),
            cost_per_task=intervals.of_money(cost),
            cost_per_success=intervals.of_money(per_success),
        )


class _Change:
    """The change from one policy to another, on the tasks that tell about both."""

    def __init__(self, ours: _Policy, theirs: _Policy) -> None:
        self.ours, self.theirs = ours, theirs
        self._errors = [ErrorSums() for _ in range(3)]

    def add(self, ours: dict[int, UnitErrors], theirs: dict[int, UnitErrors]) -> None:
        """Add the units of one part."""
        cost, its_cost = (_inverse(one.fit.means[COST]) for one in (self.ours, self.theirs))
        ratio, its_ratio = (1 / one.ratio if one.ratio else 0.0 for one in (self.ours, self.theirs))
        success_error, cost_error, ratio_error = self._errors
        for named, unit in ours.items():
            its = theirs[named]
            success_error.add(unit.errors[SUCCESS] - its.errors[SUCCESS])
            cost_error.add(unit.errors[COST] * cost - its.errors[COST] * its_cost)
            ratio_error.add(self.ours.ratio_error(unit) * ratio - self.theirs.ratio_error(its) * its_ratio)

    def value(self) -> ValueChange | None:
        if not self.ours.fit.tasks:
            return None
        (success, cost, per_success), (its_success, its_cost, its_per_success) = (
            self.ours.means(), self.theirs.means()
        )  # fmt: skip
        return ValueChange(
            tasks=self.ours.fit.tasks,
            success=intervals.difference(success, its_success, self._errors[0]),
            cost_per_task=intervals.relative(cost, its_cost, self._errors[1]),
            cost_per_success=intervals.relative(per_success, its_per_success, self._errors[2]),
        )


def _ratio(success: FittedMean | None, cost: FittedMean | None) -> float | None:
    """Return the cost per success; None without a success."""
    if success is None or cost is None or success.value <= 0 or cost.value < 0:
        return None
    return cost.value / success.value


def _inverse(mean: FittedMean | None) -> float:
    return 1 / mean.value if mean is not None and mean.value > 0 else 0.0


def _estimated(mean: FittedMean, error: ErrorSums, weights: WeightSums) -> EstimatedMean:
    rare = min(mean.successes, mean.tasks - mean.successes)
    return EstimatedMean(mean.value, error, weights.effective, rare)
