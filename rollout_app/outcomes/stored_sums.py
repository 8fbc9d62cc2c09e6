"""Convert a stored row of an arm's minute to the engine's types. Pure: map columns are given as JSON text."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from pointsman.reporting.histogram import Histogram
from rollout_app.engine.evidence import (
    TASK_COUNTS,
    ArmSums,
    Differing,
    GradedCosts,
    Group,
    MirrorSums,
    ShadowSums,
    SliceSums,
)
from rollout_app.engine.reference import Reference

# The columns that `arm_sums` and `differing` read.
FIGURES = (
    "tasks", "successes", "failures", *TASK_COUNTS, "cost_n", "cost_sum",
    "capped_sum", "capped_sum_sq", "capped_on_success", "quality_n", "quality_sum", "quality_sum_sq",
    "graded_n", "graded_successes", "graded_capped_sum", "graded_capped_sum_sq", "graded_capped_on_success",
    "graded_sum", "tracked", "decided", "cost_histogram", "latency_histogram",
)  # fmt: skip
PLAIN_FIGURES = FIGURES[:-2]  # without the text columns
DIFFERING = ("differing_known", "differing", "decided_differing", "decided_differing_known")


def arm_sums(row: Mapping[str, Any], reference: Reference | None = None) -> ArmSums:
    """Return one row as `ArmSums`. Tails need the reference's edges; without them they are 0."""
    latency, cost = _HISTOGRAM.decode(row["latency_histogram"]), _HISTOGRAM.decode(row["cost_histogram"])
    latency_edge = reference.latency_edge if reference else None
    cost_edge = reference.cost_edge if reference else None
    return plain_sums(
        row,
        latency_n=latency.total if latency_edge is not None else 0,
        latency_above=latency.above(latency_edge),
        cost_above=cost.above(cost_edge),
        cost_over=_over(cost, reference.cost_quantiles if reference else None),
    )


def plain_sums(row: Mapping[str, Any], **tails: Any) -> ArmSums:
    """Return the sums of a row's numeric columns. `tails`: the figures from its histograms."""
    tasks, successes, failures = _finished(row)
    return ArmSums(
        tasks=tasks,
        successes=successes,
        failures=failures,
        **{name: row[name] for name in TASK_COUNTS},
        cost_n=row["cost_n"],
        cost=row["capped_sum"],
        cost_sq=row["capped_sum_sq"],
        cost_on_success=row["capped_on_success"],
        cost_uncapped=row["cost_sum"],
        quality_n=row["quality_n"],
        quality=row["quality_sum"],
        quality_sq=row["quality_sum_sq"],
        costs=GradedCosts(
            row["graded_n"],
            row["graded_successes"],
            row["graded_capped_sum"],
            max(0.0, row["graded_capped_sum_sq"]),
            row["graded_capped_on_success"],
            row["graded_sum"],
        ),
        decided=_decided(row, tasks),
        **tails,
    )


def _finished(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return tasks, successes and failures. A grade may arrive before its task's report and proves that the task
    finished.
    """
    successes, failures = row["successes"], row["failures"]
    return max(row["tasks"], successes + failures), successes, failures


def _decided(row: Mapping[str, Any], tasks: int) -> int | None:
    """Return the decisions, or None if some tasks come from routers that do not count them."""
    return max(row["decided"], tasks) if row["tracked"] >= row["tasks"] else None


def _over(cost: "_StoredHistogram", quantiles: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if quantiles is None:
        return 0, 0, 0
    low, middle, high = (cost.above(edge) for edge in quantiles)
    return low, middle, high


def differing(row: Mapping[str, Any]) -> Differing | None:
    """Return the row's differing tasks by route pair, or None if some tasks come from routers that do not
    report them.
    """
    if row["differing_known"] < row["tasks"]:
        return None
    says = row["tracked"] >= row["tasks"] and row["decided_differing_known"] >= row["decided"]
    pairs = slices(row["differing"])
    return Differing(row["differing_known"], pairs, row["decided_differing"] if says else None)


def slices(stored: str) -> dict[str, SliceSums]:
    """Return endpoints or route pairs by name."""
    return (
        {} if stored == "{}" else {name: _slice(figures) for name, figures in _SLICES.decode(stored).items()}
    )


def _slice(figures: list[int | float]) -> SliceSums:
    tasks, successes, failures, n, good, cost, sq, paid, full = cast("list[int]", figures)
    costs = GradedCosts(n, good, cost, max(0.0, sq), paid, full)
    return SliceSums(max(tasks, successes + failures), successes, failures, costs)


def groups(stored: str) -> dict[int, Group]:
    """Return hash groups or cells, stored as {"7": [tasks, failures]}."""
    return {} if stored == "{}" else {key: Group(*counts) for key, counts in _GROUPS.decode(stored).items()}


def shadow(stored: str) -> ShadowSums:
    """Return the shadow sums without their routes."""
    return _SHADOW.decode(stored)


def mirror(stored: str) -> MirrorSums:
    return _MIRROR.decode(stored)


def read_shadow(stored: Mapping[str, Any]) -> ShadowSums:
    """Like `shadow`, from JSON that has been read."""
    return msgspec.convert(stored, ShadowSums)


def read_mirror(stored: Mapping[str, Any]) -> MirrorSums:
    return msgspec.convert(stored, MirrorSums)


def histogram(stored: str) -> Histogram:
    read = _HISTOGRAM.decode(stored)
    return Histogram(zero=read.zero, counts=read.counts)


class _StoredHistogram(msgspec.Struct):
    """A stored histogram; `{}` is an empty one."""

    zero: int = 0
    counts: dict[int, int] = {}

    @property
    def total(self) -> int:
        return self.zero + sum(self.counts.values())

    def above(self, edge: int | None) -> int:
        """Return how many values lie in buckets above the edge; 0 without an edge."""
        return 0 if edge is None else sum(n for bucket, n in self.counts.items() if bucket > edge)


_HISTOGRAM = msgspec.json.Decoder(_StoredHistogram)
_SLICES = msgspec.json.Decoder(dict[str, list[int | float]])
_GROUPS = msgspec.json.Decoder(dict[int, tuple[int, int]])
_SHADOW, _MIRROR = msgspec.json.Decoder(ShadowSums), msgspec.json.Decoder(MirrorSums)
