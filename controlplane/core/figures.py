"""Figures for Prometheus that only the database knows. They are read by a thread; a scrape gets what it read last.

A scrape that asked the database itself would wait for it, and come too late just when it is wanted most.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_all: list["DatabaseFigures"] = []


class DatabaseFigures(Collector):
    """The same in every process. While the database is away there are none: an old figure would pass for a new one."""

    def __init__(self) -> None:
        self._last: Sequence[Metric] = ()

    def read(self) -> Sequence[Metric]:
        """Ask the database. May raise."""
        raise NotImplementedError

    def look(self) -> None:
        """Read them anew, or forget them and raise."""
        self._last = ()
        self._last = self.read()

    def collect(self) -> Iterable[Metric]:
        return self._last

    def describe(self) -> Iterable[Metric]:
        return []  # the names are ours alone; there is nothing to compare them with


def register(figures: DatabaseFigures) -> None:
    _all.append(figures)
    REGISTRY.register(figures)


def look() -> None:
    """Read all of them anew. Raises what the first of them raises that cannot."""
    failure: Exception | None = None
    for figures in _all:
        try:
            figures.look()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
