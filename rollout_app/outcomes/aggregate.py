"""Adding up what buckets say, in memory. Pure: nothing here looks at the database.

Tens of thousands of contributions are added each second, so each kind of map is added by a loop of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import add
from typing import Any, NamedTuple

from rollout_app.outcomes.schemas import ReportedGroup

# Groups that a killed process left behind are read in this order: before it changes, let all be counted.
NUMBERS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "attempts",
    "quality_n", "quality_sum", "quality_sum_sq", "confidence_n", "confidence_sum", "confidence_sum_sq",
    "cost_n", "cost_sum", "cost_sum_sq", "cost_on_success",
    "capped_sum", "capped_sum_sq", "capped_on_success",
)  # fmt: skip
DETAILS = (
    "cost_histogram", "latency_histogram", "groups", "tasks_by_model", "errors_by_kind", "shadow", "mirror",
)  # fmt: skip


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

    def of_arm(self) -> "ArmKey":
        return ArmKey(*self[:7])


class ArmKey(NamedTuple):
    environment_id: int
    workload_id: int
    minute: datetime
    rollout: str
    stage: int
    arm: str
    version: int


Counts = dict[str, Any]  # {name: figure}; of a shadow also {"routes": {route: n}}
# In the order of `DETAILS`. A histogram is {"zero": n, "counts": {index: n}}.
Details = tuple[Counts, Counts, dict[str, ReportedGroup], Counts, Counts, Counts, Counts]


class Contribution(NamedTuple):
    """What one bucket adds."""

    key: RouteKey
    numbers: list[int | float]  # in the order of `NUMBERS`
    details: Details


class RunningTotals:
    """The figures of one key, adding up."""

    __slots__ = ("details", "numbers")

    def __init__(self) -> None:
        self.numbers: list[int | float] = [0] * len(NUMBERS)
        self.details: Details = ({}, {}, {}, {}, {}, {}, {})

    def add(self, numbers: Sequence[int | float], details: Details) -> None:
        """Leaves what it is given alone."""
        self.numbers = list(map(add, self.numbers, numbers))
        for adder, mine, other in zip(_ADDERS, self.details, details, strict=True):
            if other:
                adder(mine, other)


def add_up(contributions: Iterable[Contribution], sums: dict[RouteKey, RunningTotals]) -> None:
    for key, numbers, details in contributions:
        mine = sums.get(key)
        if mine is None:
            mine = sums[key] = RunningTotals()
        mine.add(numbers, details)


def by_arm(buckets: Mapping[RouteKey, RunningTotals]) -> dict[ArmKey, RunningTotals]:
    """The same figures over all routes of each arm."""
    arms: dict[ArmKey, RunningTotals] = {}
    for key, sums in buckets.items():
        arm = key.of_arm()
        if arm not in arms:
            arms[arm] = RunningTotals()
        arms[arm].add(sums.numbers, sums.details)
    return arms


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


def _add_groups(mine: dict[str, ReportedGroup], other: dict[str, ReportedGroup]) -> None:
    known = mine.get
    for name, group in other.items():
        own = known(name)
        if own is None:
            mine[name] = ReportedGroup(group.tasks, group.failures)
        else:
            own.tasks += group.tasks
            own.failures += group.failures


def _add_shadow(mine: Counts, other: Counts) -> None:
    for name, figure in other.items():
        if name == "routes":
            _add_counts(mine.setdefault("routes", {}), figure)
        else:
            mine[name] = mine.get(name, 0) + figure


_ADDERS: tuple[Callable[[Any, Any], None], ...] = (
    _add_histogram, _add_histogram, _add_groups, _add_counts, _add_counts, _add_shadow, _add_counts,
)  # fmt: skip
