"""Figures for Prometheus, read from the database at each scrape: every process tells the same."""

from collections.abc import Iterable

from django.conf import settings
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from policies_app.snapshots import publish

_PUBLISHED = {
    "pointsman_published_revision": "The revision that the bucket of snapshots holds; -1: none yet",
    "pointsman_published_behind_seconds": "How long the bucket has not held what is served now; 0: it does",
    "pointsman_published_failures": "Failed tries to publish, in a row",
}


class PublishedFigures(Collector):
    """Nothing without a bucket, and while the database is away: a scrape goes on."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        if not settings.SNAPSHOT_BUCKET:
            return []
        families = [
            GaugeMetricFamily(name, text, labels=["environment"]) for name, text in _PUBLISHED.items()
        ]
        try:
            states = publish.states()
        except Exception:
            return []
        for state in states:
            figures = (state.revision, state.behind_s, state.failures)
            for family, figure in zip(families, figures, strict=True):
                family.add_metric([state.environment], figure)
        return families

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []  # or else registering it would ask the database
