"""A router's metrics: exact counters, and a Prometheus collector if prometheus_client is installed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from pointsman.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

__all__ = ["Counter", "register"]


class Counter:
    """Counts from any thread without a lock: counting is one atomic step of an iterator.

    Reading also takes a step, and subtracts the steps taken by reads; only readers wait for each other.
    """

    __slots__ = ("_lock", "_reads", "_steps", "hit")

    def __init__(self) -> None:
        self._steps = count()
        self._reads = 0
        self._lock = threading.Lock()
        self.hit: Callable[[], int] = self._steps.__next__

    @property
    def value(self) -> int:
        with self._lock:
            self._reads += 1
            return next(self._steps) - self._reads + 1


# status() key → (Prometheus name, help). Counters end in _total by convention.
_GAUGES = {
    "revision": ("pointsman_revision", "Revision of the applied snapshot"),
    "staleness_s": (
        "pointsman_staleness_seconds",
        "Time since the control plane last confirmed the snapshot",
    ),
    "ready": ("pointsman_ready", "1 when a snapshot is applied"),
    "workloads": ("pointsman_workloads", "Workloads in the applied snapshot"),
    "rejected_policies": (
        "pointsman_rejected_policies",
        "Policies of the snapshot that this router rejected",
    ),
    "failures_in_a_row": (
        "pointsman_poll_failures_in_a_row",
        "Failed polls since the last successful one",
    ),
    "outcomes_waiting": ("pointsman_outcomes_waiting", "Tasks recorded and not yet acknowledged"),
    "batches_waiting": ("pointsman_batches_waiting", "Outcome batches not yet acknowledged"),
    "clock_ahead_s": (
        "pointsman_clock_ahead_seconds",
        "How far this clock is ahead, while outcomes wait because of it",
    ),
    "feedback_waiting": ("pointsman_feedback_waiting", "Items of feedback not yet acknowledged"),
}
_COUNTERS = {
    "decisions": ("pointsman_decisions", "Decisions made"),
    "decisions_without_policy": (
        "pointsman_decisions_without_policy",
        "Decisions for a workload without a policy",
    ),
    "evaluation_errors": ("pointsman_evaluation_errors", "Decisions answered by guard.on_evaluation_error"),
    "unit_missing": ("pointsman_unit_missing", "Decisions without the workload's unit of assignment"),
    "polls": ("pointsman_polls", "Polls of the control plane"),
    "poll_failures": ("pointsman_poll_failures", "Polls that failed"),
    "snapshots_applied": ("pointsman_snapshots_applied", "Snapshots and deltas applied"),
    "snapshots_refused": ("pointsman_snapshots_refused", "Snapshots refused"),
    "store_errors": ("pointsman_store_errors", "Snapshots that could not be written to disk"),
    "outcomes_recorded": ("pointsman_outcomes_recorded", "Tasks recorded"),
    "outcomes_accepted": ("pointsman_outcomes_accepted", "Tasks acknowledged by the control plane"),
    "outcomes_dropped": ("pointsman_outcomes_dropped", "Tasks dropped for lack of room"),
    "outcomes_refused": ("pointsman_outcomes_refused", "Tasks that the control plane refused"),
    "outcomes_invalid": ("pointsman_outcomes_invalid", "Outcomes that could not be recorded"),
    "outcomes_repeated": ("pointsman_outcomes_repeated", "Outcomes ignored: the task was recorded already"),
    "outcomes_without_policy": (
        "pointsman_outcomes_without_policy",
        "Outcomes of tasks that no policy decided",
    ),
    "figures_invalid": (
        "pointsman_figures_invalid",
        "Costs, latencies and scores left out because they are invalid",
    ),
    "feedback_dropped": ("pointsman_feedback_dropped", "Items of feedback dropped or refused"),
    "mirrors_failed": ("pointsman_mirrors_failed", "Mirrored tasks whose mirrored request gave no answer"),
    "mirrors_braked": ("pointsman_mirrors_braked", "Tasks not mirrored because mirrored requests fail"),
    "task_log_written": ("pointsman_task_log_written", "Lines of the task log that were written"),
    "inputs_sampled": ("pointsman_inputs_sampled", "Samples of inputs that the control plane accepted"),
    "inputs_dropped": ("pointsman_inputs_dropped", "Samples of inputs that were not accepted"),
    "task_log_dropped": ("pointsman_task_log_dropped", "Lines of the task log that were dropped"),
}


class _Collector:
    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._status()
        for key, (name, text) in _GAUGES.items():
            if status[key] is not None:
                yield GaugeMetricFamily(name, text, value=float(status[key]))
        for key, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=float(status[key]))


def register(status: Callable[[], Mapping[str, Any]], registry: CollectorRegistry | None = None) -> object:
    """Export a router's `status` to Prometheus, read at every scrape: `register(router.status)`.

    Returns the collector, for `registry.unregister(…)`. Raises ConfigurationError if prometheus_client is missing.
    """
    try:
        from prometheus_client.registry import REGISTRY
        from prometheus_client.registry import Collector as Base
    except ImportError as error:
        raise ConfigurationError(
            "metrics need prometheus_client: pip install 'pointsman[prometheus]'"
        ) from error
    collector = type("RouterCollector", (_Collector, Base), {})(status)
    (registry or REGISTRY).register(collector)
    return collector
