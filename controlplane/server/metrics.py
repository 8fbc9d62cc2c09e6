"""Prometheus metrics of this process: plain counters in the request path, converted at each scrape.

Each carries the process's `pid`. Workers that share a port are scraped in turns, and without the label one worker's
counters would be taken for another's.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots.serving import SnapshotService
from policies_app.snapshots.watcher import Watcher
from rollout_app.outcomes.ingest import Ingest


@dataclass(frozen=True, eq=False)
class ProcessFigures(Collector):
    """`answered` holds the number of responses by status, for each endpoint of the router protocol."""

    answered: Mapping[str, Counter[int]]
    snapshots: SnapshotService
    ingest: Ingest
    fleet: FleetBuffer
    watcher: Watcher

    def collect(self) -> Iterable[Metric]:
        pid = str(os.getpid())
        yield self._requests(pid)
        yield from self._snapshots(pid)
        yield from self._outcomes(pid)
        yield _gauge(
            "fleet_buffered",
            "Routers heard from but not yet written to the database",
            pid,
            self.fleet.buffered,
        )

    def describe(self) -> Iterable[Metric]:
        return []  # only we use these names, so there is nothing to check for duplicates

    def _requests(self, pid: str) -> Metric:
        requests = CounterMetricFamily(
            "pointsman_router_requests",
            "Responses to routers by endpoint (door) and status; 304: nothing newer, 429: back-pressure",
            labels=["pid", "door", "status"],
        )
        for door, answered in self.answered.items():
            # Copy it: the event loop may add a status during the loop.
            for status, number in dict(answered).items():
                requests.add_metric([pid, door, str(status)], number)
        return requests

    def _snapshots(self, pid: str) -> Iterable[Metric]:
        yield _gauge("long_polls_held", "Long polls waiting now", pid, self.snapshots.held.total())
        built = CounterMetricFamily(
            "pointsman_snapshot_bodies_built", "Snapshot bodies built, before compression", labels=["pid"]
        )
        built.add_metric([pid], self.snapshots.built)
        yield built
        revision = GaugeMetricFamily(
            "pointsman_snapshot_revision", "The revision served now", labels=["pid", "environment"]
        )
        for name, environment in dict(self.snapshots.cache).items():
            revision.add_metric([pid, name], environment.header.revision)
        yield revision
        for name, text, age in (
            (
                "snapshot_look_age_seconds",
                "Seconds since the database was last polled",
                self.watcher.polled_ago(),
            ),
            (
                "keys_age_seconds",
                "Seconds since the keys were last read: the delay of a revocation",
                self.watcher.keys_read_ago(),
            ),
        ):
            # Before the first read, the age of the watcher: a process that starts while the database is away would
            # otherwise have no series, and the alert for old data would end.
            yield _gauge(name, text, pid, self.watcher.age() if age is None else age)

    def _outcomes(self, pid: str) -> Iterable[Metric]:
        load = self.ingest.load()
        yield _gauge("ingest_waiting_requests", "Reports waiting to be committed", pid, load.waiting)
        yield _gauge("ingest_waiting_parts", "Buckets and events in waiting reports", pid, load.waiting_parts)
        groups = SummaryMetricFamily(
            "pointsman_ingest_group_requests", "Reports committed in one transaction", labels=["pid"]
        )
        groups.add_metric([pid], count_value=load.groups, sum_value=load.grouped)
        yield groups
        yield from self.ingest.reported.collect(pid)


def _gauge(name: str, text: str, pid: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(f"pointsman_{name}", text, labels=["pid"])
    gauge.add_metric([pid], value)
    return gauge
