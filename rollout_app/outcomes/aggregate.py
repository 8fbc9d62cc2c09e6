"""Adding up what is reported, in memory. Pure: nothing here reads the database.

Tens of thousands of contributions are added each second, so each kind of map is added by a loop of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import Any, NamedTuple

from rollout_app.outcomes.schemas import ReportedGroup

# The columns of a route's row. Deferred groups are stored in this order: add at the end only (see `store`).
NUMBERS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "attempts",
    "quality_n", "quality_sum", "quality_sum_sq", "confidence_n", "confidence_sum", "confidence_sum_sq",
    "cost_n", "cost_sum", "cost_sum_sq", "cost_on_success",
    "capped_sum", "capped_sum_sq", "capped_on_success",
    "graded_n", "graded_successes", "graded_sum", "graded_sum_sq", "graded_on_success",
    "graded_capped_sum", "graded_capped_sum_sq", "graded_capped_on_success",
    "differing_known", "tracked",
)  # fmt: skip
DETAILS = (
    "cost_histogram", "latency_histogram", "groups", "tasks_by_model", "errors_by_kind", "shadow", "mirror",
    "differing",
)  # fmt: skip
# What an arm's row has beside them.
ARM_ONLY_NUMBERS = ("decided", "decided_differing", "decided_differing_known")
ARM_NUMBERS = NUMBERS + ARM_ONLY_NUMBERS
ARM_DETAILS = (*DETAILS, "endpoints", "cells")
# The figures of a slice of tasks, an endpoint or a route pair, in the order of their list.
SLICE = (
    "tasks", "successes", "failures", "graded_n", "graded_successes", "graded_capped_sum", "graded_capped_sum_sq",
    "graded_capped_on_success", "graded_sum",
)  # fmt: skip
MOST_SLICES = 64  # endpoints or route pairs of one row; the others count as one
OTHER = "other"
_SLICE_AT = tuple(map(NUMBERS.index, SLICE))


class ArmKey(NamedTuple):
    environment_id: int
    workload_id: int
    minute: datetime
    rollout: str  # empty outside a rollout, where `stage` is -1
    stage: int
    arm: str
    version: int


class RouteKey(NamedTuple):
    """A bucket's place. The order is that of the upserts."""

    environment_id: int
    workload_id: int
    minute: datetime
    rollout: str
    stage: int
    arm: str
    version: int
    endpoint: str
    rule: str
    model: str

    def of_arm(self) -> ArmKey:
        return ArmKey(*self[:7])


Figures = list[int | float]
Counts = dict[str, Any]  # {name: figure}; of a shadow also {"routes": {route: n}}
Groups = dict[str, ReportedGroup]
Slices = dict[str, Figures]
# In the order of `DETAILS`. A histogram is {"zero": n, "counts": {index: n}}.
Details = tuple[Counts, Counts, Groups, Counts, Counts, Counts, Counts, Slices]


class Contribution(NamedTuple):
    """What one bucket adds to its route."""

    key: RouteKey
    numbers: Figures  # in the order of `NUMBERS`
    details: Details


class ArmContribution(NamedTuple):
    """What is reported of an arm as a whole: its decisions, and its units by hash cell."""

    key: ArmKey
    numbers: Figures  # in the order of `ARM_ONLY_NUMBERS`
    cells: Groups


class RunningTotals:
    """The figures of one row, adding up."""

    __slots__ = ("details", "numbers")

    def __init__(self, numbers: Figures, details: tuple[Any, ...]) -> None:
        self.numbers = numbers
        self.details = details

    @classmethod
    def of_route(cls) -> "RunningTotals":
        return cls([0] * len(NUMBERS), ({}, {}, {}, {}, {}, {}, {}, {}))

    def add(self, numbers: Sequence[int | float], details: Sequence[Any]) -> None:
        """Add figures of the same kind of row. Leaves what it is given alone."""
        self.numbers = list(map(add, self.numbers, numbers))
        for adder, mine, other in zip(_ADDERS, self.details, details, strict=False):
            if other:
                adder(mine, other)


@dataclass(slots=True)
class Totals:
    """What many reports come to: by route, and what was reported of whole arms."""

    routes: dict[RouteKey, RunningTotals] = field(default_factory=dict)
    arms: dict[ArmKey, tuple[Figures, Groups]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.routes) + len(self.arms)

    def add(self, contributions: Iterable[Contribution | ArmContribution]) -> None:
        routes = self.routes
        for one in contributions:
            if isinstance(one, ArmContribution):
                self._add_to_arm(one)
                continue
            key, numbers, details = one
            mine = routes.get(key)
            if mine is None:
                mine = routes[key] = RunningTotals.of_route()
            mine.add(numbers, details)

    def _add_to_arm(self, one: ArmContribution) -> None:
        numbers, cells = self.arms.get(one.key) or ([0] * len(ARM_ONLY_NUMBERS), {})
        _add_groups(cells, one.cells)
        self.arms[one.key] = list(map(add, numbers, one.numbers)), cells

    def by_arm(self) -> dict[ArmKey, RunningTotals]:
        """The figures of each arm: over all its routes, by endpoint within a rollout, and its own."""
        sums: dict[ArmKey, RunningTotals] = {}
        endpoints: dict[ArmKey, Slices] = {}
        for key, route in self.routes.items():
            arm = key.of_arm()
            if arm not in sums:
                sums[arm] = RunningTotals.of_route()
                endpoints[arm] = {}
            sums[arm].add(route.numbers, route.details)
            if key.rollout:
                _add_slices(endpoints[arm], {key.endpoint: [route.numbers[at] for at in _SLICE_AT]})
        for arm in self.arms.keys() - sums.keys():
            sums[arm] = RunningTotals.of_route()
        for arm, mine in sums.items():
            numbers, cells = self.arms.get(arm) or ([0] * len(ARM_ONLY_NUMBERS), {})
            mine.numbers += numbers
            mine.details += (endpoints.get(arm, {}), cells)
        return sums


# --- the maps, each kind added in its own way ---------------------------------------------------------


def _add_counts(mine: Counts, other: Counts) -> None:
    if mine:
        known = mine.get
        for name, figure in other.items():
            mine[name] = known(name, 0) + figure
    else:
        mine.update(other)


def _add_histogram(mine: Counts, other: Counts) -> None:
    if mine:
        mine["zero"] += other["zero"]
        _add_counts(mine["counts"], other["counts"])
    else:
        mine.update(zero=other["zero"], counts=dict(other["counts"]))


def _add_groups(mine: Groups, other: Groups) -> None:
    known = mine.get
    for name, group in other.items():
        own = known(name)
        if own is None:
            mine[name] = ReportedGroup(group.tasks, group.failures)
        else:
            own.tasks += group.tasks
            own.failures += group.failures


_PRICED = ("candidate_priced", "baseline_priced")


def _add_shadow(mine: Counts, other: Counts) -> None:
    """Of how many decisions the cost is known stays known only while each part says it."""
    for name in _PRICED:
        if mine and not (name in mine and name in other):
            mine.pop(name, None)
            other = {key: figure for key, figure in other.items() if key != name}
    for name, figure in other.items():
        if name == "routes":
            _add_counts(mine.setdefault("routes", {}), figure)
        else:
            mine[name] = mine.get(name, 0) + figure


def _add_slices(mine: Slices, other: Slices) -> None:
    """Whether a slice has a line of its own depends on the number of slices, never on how they went."""
    for name, figures in other.items():
        place = name if name in mine or len(mine) < MOST_SLICES else OTHER
        own = mine.get(place)
        mine[place] = list(map(add, own, figures)) if own else figures


_ADDERS: tuple[Callable[[Any, Any], None], ...] = (
    _add_histogram, _add_histogram, _add_groups, _add_counts, _add_counts, _add_shadow, _add_counts, _add_slices,
    _add_slices, _add_groups,
)  # fmt: skip
