"""Add up reports in memory. Pure: nothing here reads the database.

Tens of thousands of contributions are added each second, so each kind of map has its own loop.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import Any, NamedTuple

from rollout_app.outcomes.schemas import ReportedGroup

# The columns of a route's row. Deferred groups are stored in this order, so add new ones at the end only (see
# `store`).
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
# Additional columns of an arm's row.
ARM_ONLY_NUMBERS = ("decided", "decided_differing", "decided_differing_known")
ARM_NUMBERS = NUMBERS + ARM_ONLY_NUMBERS
ARM_DETAILS = (*DETAILS, "endpoints", "cells")
# The figures of a slice of tasks (an endpoint or a route pair), in the order of their list.
SLICE = (
    "tasks", "successes", "failures", "graded_n", "graded_successes", "graded_capped_sum", "graded_capped_sum_sq",
    "graded_capped_on_success", "graded_sum",
)  # fmt: skip
MOST_SLICES = 64  # endpoints or route pairs per row; further ones are added up as "other"
MOST_NAMES = 64  # models, or kinds of error, per row; likewise
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
    """The key of a bucket. Upserts follow its order."""

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
Counts = dict[str, Any]  # {name: figure}; a shadow also has {"routes": {route: n}}
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
    """What is reported for an arm as a whole: its decisions, and its units by hash cell."""

    key: ArmKey
    numbers: Figures  # in the order of `ARM_ONLY_NUMBERS`
    cells: Groups


class RunningTotals:
    """The running totals of one row."""

    __slots__ = ("details", "numbers")

    def __init__(self, numbers: Figures, details: tuple[Any, ...]) -> None:
        self.numbers = numbers
        self.details = details

    @classmethod
    def of_route(cls) -> "RunningTotals":
        return cls([0] * len(NUMBERS), ({}, {}, {}, {}, {}, {}, {}, {}))

    def add(self, numbers: Sequence[int | float], details: Sequence[Any]) -> None:
        """Add the figures of a row of the same kind. Does not modify the arguments."""
        self.numbers = list(map(add, self.numbers, numbers))
        for adder, mine, other in zip(_ADDERS, self.details, details, strict=False):
            if other:
                adder(mine, other)


@dataclass(slots=True)
class Totals:
    """The sum of many reports: by route, and for whole arms."""

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
        """Return the totals of each arm: the sum of its routes, the same by endpoint within a rollout, and its own
        figures.
        """
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


# --- one function for each kind of map ----------------------------------------------------------------


def _add_counts(mine: Counts, other: Counts) -> None:
    if mine:
        known = mine.get
        for name, figure in other.items():
            mine[name] = known(name, 0) + figure
    else:
        mine.update(other)


def _add_names(mine: Counts, other: Counts) -> None:
    """Add counts by name. A router that makes up names (an error's whole text) must not make its row grow for ever."""
    for name, figure in other.items():
        place = name if name in mine or len(mine) < MOST_NAMES else OTHER
        mine[place] = mine.get(place, 0) + figure


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
_SHADOW_COSTS = ("candidate_cost_nusd", "baseline_cost_nusd")


def _add_shadow(mine: Counts, other: Counts) -> None:
    """Add shadow counts. As in `ShadowSums`: beside a part that reports its priced decisions, the costs of one that
    does not are left out.
    """
    counts_mine, counts_other = (any(name in part for name in _PRICED) for part in (mine, other))
    if counts_other and not counts_mine:
        mine |= dict.fromkeys(_SHADOW_COSTS, 0)
    for name, figure in other.items():
        if name == "routes":
            _add_counts(mine.setdefault("routes", {}), figure)
        elif name not in _SHADOW_COSTS or counts_other or not counts_mine:
            mine[name] = mine.get(name, 0) + figure


def _add_slices(mine: Slices, other: Slices) -> None:
    """Add slices. Whether a slice gets its own line depends on the number of slices, never on their results."""
    for name, figures in other.items():
        place = name if name in mine or len(mine) < MOST_SLICES else OTHER
        own = mine.get(place)
        mine[place] = list(map(add, own, figures)) if own else figures


_ADDERS: tuple[Callable[[Any, Any], None], ...] = (
    _add_histogram, _add_histogram, _add_groups, _add_names, _add_names, _add_shadow, _add_counts, _add_slices,
    _add_slices, _add_groups,
)  # fmt: skip
