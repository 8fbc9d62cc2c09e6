"""What makes an outcome bucket impossible: figures that contradict each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pointsman.reporting.histogram import Histogram

__all__ = ["contradiction"]

_COUNTS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "attempts",
)  # fmt: skip


def contradiction(bucket: Mapping[str, Any]) -> str | None:
    """The first contradiction in a bucket of the protocol, as a sentence; None when there is none."""
    try:
        return _counts(bucket) or _moments(bucket) or _costs(bucket) or _parts(bucket)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


def _counts(bucket: Mapping[str, Any]) -> str | None:
    for name in _COUNTS:
        if not isinstance(bucket[name], int) or bucket[name] < 0:
            return f"{name} must be a count, not {bucket[name]!r}"
    tasks = bucket["tasks"]
    if tasks != bucket["successes"] + bucket["failures"] + bucket["ungraded"]:
        return "tasks must be successes + failures + ungraded"
    for name in ("errors", "escalations", "fallbacks", "retries"):
        if bucket[name] > tasks:
            return f"{name} counts tasks, and there are only {tasks}"
    if bucket["attempts"] < tasks:
        return "every task has an attempt"
    return None


def _moments(bucket: Mapping[str, Any]) -> str | None:
    for name in ("quality", "confidence"):
        n, total, squares = (bucket[name][key] for key in ("n", "sum", "sum_sq"))
        if not 0 <= n <= bucket["tasks"] or not all(map(math.isfinite, (total, squares))):
            return f"{name} must be of at most all tasks, and finite"
        if total < 0 or total > n + 1e-9 or squares > total + 1e-9 or squares * n < total * total - 1e-6:
            return f"{name}: these sums are not those of {n} figures between 0 and 1"
    return None


def _costs(bucket: Mapping[str, Any]) -> str | None:
    cost = bucket["cost_nusd"]
    histogram = Histogram.from_dict(cost["histogram"])
    if histogram.total != cost["n"] or cost["n"] > bucket["tasks"]:
        return "the cost histogram must count the tasks that have a cost"
    for sums in (cost, cost["capped"]):
        if not 0 <= sums["sum_on_success"] <= sums["sum"] or not math.isfinite(sums["sum_sq"]):
            return "a cost sum contradicts another"
    if cost["capped"]["sum"] > cost["sum"]:
        return "capped costs are never above the exact ones"
    return None


def _parts(bucket: Mapping[str, Any]) -> str | None:
    if Histogram.from_dict(bucket["latency_ms"]).total > bucket["tasks"]:
        return "more latencies than tasks"
    groups = bucket.get("groups", {}).values()
    if sum(group["tasks"] for group in groups) > bucket["tasks"]:
        return "more tasks in groups than tasks"
    if sum(bucket["errors_by_kind"].values()) != bucket["errors"]:
        return "errors_by_kind must sum to errors"
    shadow, mirror = bucket["shadow"], bucket["mirror"]
    if shadow["agreed"] > shadow["decisions"] or sum(shadow["routes"].values()) != shadow["decisions"]:
        return "the shadow's routes must sum to its decisions"
    if mirror["n"] != sum(mirror[end] for end in ("both", "only_candidate", "only_baseline", "neither")):
        return "the mirror's ends must sum to n"
    return None
