"""Prometheus metrics of each environment's publication. None without a bucket."""

from django.conf import settings
from prometheus_client.core import GaugeMetricFamily

from controlplane.core.figures import DatabaseFigures
from policies_app.snapshots import publish

_PUBLISHED = {
    "pointsman_published_revision": "The revision in the snapshot bucket; -1: none yet",
    "pointsman_published_behind_seconds": "How long the bucket has lacked what is served now; 0: it is current",
    "pointsman_published_failures": "Consecutive failed attempts to publish",
}


class PublishedFigures(DatabaseFigures):
    def read(self) -> list[GaugeMetricFamily]:
        if not settings.SNAPSHOT_BUCKET:
            return []
        families = [
            GaugeMetricFamily(name, text, labels=["environment"]) for name, text in _PUBLISHED.items()
        ]
        for state in publish.states():
            values = (state.revision, state.behind_s, state.failures)
            for family, value in zip(families, values, strict=True):
                family.add_metric([state.environment], value)
        return families
