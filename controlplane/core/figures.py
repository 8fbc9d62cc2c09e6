"""Prometheus metrics that only the database knows. A thread reads them; a scrape gets the last values read.

If a scrape queried the database itself, it would be slow or time out exactly when the figures matter most.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_all: list["DatabaseFigures"] = []


class DatabaseFigures(Collector):
    """Metrics with the same values in every process. Empty while the database is away: an old value must not look
    current."""

    def __init__(self) -> None:
        self._last: Sequence[Metric] = ()

    def read(self) -> Sequence[Metric]:
        """Query the database. May raise."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Read the values again. If that fails, drop the old ones and raise.

        They are replaced only afterwards: a read may take seconds, and an alert starts anew at each scrape without a
        series.
        """
        try:
            self._last = self.read()
        except Exception:
            self._last = ()
            raise

    def collect(self) -> Iterable[Metric]:
        return self._last

    def describe(self) -> Iterable[Metric]:
        return []  # only we use these names, so there is nothing to check for duplicates


def register(figures: DatabaseFigures) -> None:
    _all.append(figures)
    REGISTRY.register(figures)


def refresh() -> None:
    """Read all of them again, then raise the first error, if there was one."""
    failure: Exception | None = None
    for figures in _all:
        try:
            figures.refresh()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
