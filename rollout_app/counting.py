"""Adding up what buckets say, in memory. Pure: nothing here looks at the database.

Tens of thousands of contributions are added each second, so each kind of map is added by a loop of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import add
from typing import Any, NamedTuple

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


class Key(NamedTuple):
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


class Contribution(NamedTuple):
    """What one bucket adds, in the order of `NUMBERS` and `DETAILS`."""

    key: Key
    numbers: list[int | float]
    details: tuple[Mapping[str, Any], ...]


class Sums:
    """The figures of one key, adding up."""

    __slots__ = ("details", "numbers")

    def __init__(self) -> None:
        self.numbers: list[int | float] = [0] * len(NUMBERS)
        self.details: list[dict[str, Any]] = [{} for _ in DETAILS]

    def add(self, numbers: Sequence[int | float], details: Sequence[Mapping[str, Any]]) -> None:
        """Leaves what it is given alone."""
        self.numbers = list(map(add, self.numbers, numbers))
        for adder, mine, other in zip(_ADDERS, self.details, details, strict=True):
            if other:
                adder(mine, other)


def add_up(contributions: Iterable[Contribution], sums: dict[Key, Sums]) -> None:
    for key, numbers, details in contributions:
        mine = sums.get(key)
        if mine is None:
            mine = sums[key] = Sums()
        mine.add(numbers, details)


def by_arm(buckets: Mapping[Key, Sums]) -> dict[ArmKey, Sums]:
    """The same figures over all routes of each arm."""
    arms: dict[ArmKey, Sums] = {}
    for key, sums in buckets.items():
        arm = key.of_arm()
        if arm not in arms:
            arms[arm] = Sums()
        arms[arm].add(sums.numbers, sums.details)
    return arms


# --- the maps, each kind added in its own way ---------------------------------------------------------


def _add_counts(mine: dict[str, Any], other: Mapping[str, Any]) -> None:
    """{name: figure}."""
    if not mine:
        mine.update(other)
        return
    for name, figure in other.items():
        if name in mine:
            mine[name] += figure
        else:
            mine[name] = figure


def _add_histogram(mine: dict[str, Any], other: Mapping[str, Any]) -> None:
    """{"zero": n, "counts": {index: n}}."""
    if mine:
        mine["zero"] += other["zero"]
        _add_counts(mine["counts"], other["counts"])
    else:
        mine.update(zero=other["zero"], counts=dict(other["counts"]))


def _add_groups(mine: dict[str, Any], other: Mapping[str, Any]) -> None:
    """{group: [tasks, failures]}. A pair is replaced, never written into: it may be another's."""
    for group, pair in other.items():
        mine[group] = [mine[group][0] + pair[0], mine[group][1] + pair[1]] if group in mine else pair


def _add_shadow(mine: dict[str, Any], other: Mapping[str, Any]) -> None:
    """{name: figure, "routes": {route: n}}."""
    routes = dict(mine.get("routes", {}))
    _add_counts(routes, other.get("routes", {}))
    _add_counts(mine, {name: figure for name, figure in other.items() if name != "routes"})
    mine["routes"] = routes


_ADDERS: tuple[Callable[[dict[str, Any], Mapping[str, Any]], None], ...] = (
    _add_histogram, _add_histogram, _add_groups, _add_counts, _add_counts, _add_shadow, _add_counts,
)  # fmt: skip
