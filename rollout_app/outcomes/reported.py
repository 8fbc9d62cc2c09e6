"""Prometheus metrics of what routers reported to this process since it began, by arm.

Added up in memory when a report is accepted, so no scrape queries the database. A report that a router sends again
counts again here (never in a rollout's sums), and a later grade by feedback does not count.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from pointsman.reporting.histogram import PER_DOUBLING, middle
from rollout_app.outcomes.schemas import ReportedBucket

LATENCY_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # upper edges; +Inf above the last
LONGEST = 40 * PER_DOUBLING  # the histogram bucket of 2^40 ms: longer latencies count as this in the sum
Arm = tuple[str, str]  # environment, arm


class ReportedTasks:
    """Counts reported tasks. The event loop calls `add`, a scrape calls `collect`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: Counter[tuple[str, str, str]] = Counter()  # environment, arm, grade
        self._missing: Counter[tuple[str, str, str]] = Counter()  # environment, arm, what
        self._latency: dict[Arm, list[int]] = {}
        self._latency_sum_s: Counter[Arm] = Counter()

    def add(self, environment: str, buckets: Sequence[ReportedBucket]) -> None:
        with self._lock:
            for bucket in buckets:
                self._add(environment, bucket)

    def _add(self, environment: str, bucket: ReportedBucket) -> None:
        arm, latency = (environment, bucket.arm), bucket.latency_ms
        for grade, tasks in (
            ("success", bucket.successes), ("failure", bucket.failures), ("none", bucket.ungraded),
        ):  # fmt: skip
            self._tasks[*arm, grade] += tasks
        self._missing[*arm, "cost"] += max(0, bucket.tasks - bucket.cost_nusd.n)
        self._missing[*arm, "grade"] += bucket.ungraded
        known = latency.zero + sum(latency.counts.values())
        self._missing[*arm, "latency"] += max(0, bucket.tasks - known)
        slots = self._latency.setdefault(arm, [0] * (len(LATENCY_S) + 1))
        slots[0] += latency.zero
        for index, tasks in latency.counts.items():
            seconds = middle(min(int(index), LONGEST)) / 1_000
            slots[bisect_left(LATENCY_S, seconds)] += tasks
            self._latency_sum_s[arm] += seconds * tasks  # type: ignore[assignment]

    def collect(self, pid: str) -> Iterable[Metric]:
        with self._lock:
            yield _counted(
                "outcomes", "Tasks that routers reported, by their grade", "grade", pid, self._tasks
            )
            text = "Reported tasks whose cost, grade or latency is unknown"
            yield _counted("outcomes_missing", text, "figure", pid, self._missing)
            family = HistogramMetricFamily(
                "pointsman_outcome_latency_seconds",
                "Latency of the tasks that routers reported",
                labels=["pid", "environment", "arm"],
            )
            edges = [*map(str, LATENCY_S), "+Inf"]
            for arm, slots in self._latency.items():
                buckets = list(zip(edges, map(float, accumulate(slots)), strict=True))
                family.add_metric([pid, *arm], buckets, self._latency_sum_s[arm])
            yield family


def _counted(name: str, text: str, label: str, pid: str, counts: Counter[tuple[str, str, str]]) -> Metric:
    family = CounterMetricFamily(f"pointsman_{name}", text, labels=["pid", "environment", "arm", label])
    for labels, number in counts.items():
        family.add_metric([pid, *labels], number)
    return family
