"""Keep httpx's INFO line per request out of the application's log, but only for the router's own requests.

A router polls and flushes continuously, which would log two useless lines every few seconds. The level of the
logger `httpx` belongs to the application and is not changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["no_line_per_request", "quiet_httpx"]

_ours: ContextVar[bool] = ContextVar("pointsman_request", default=False)


def quiet_httpx() -> None:
    """Add the filter to httpx's logger. Further calls have no effect."""
    logging.getLogger("httpx").addFilter(_FILTER)


@contextmanager
def no_line_per_request() -> Iterator[None]:
    """Drop httpx's messages below WARNING in this context. Other threads and coroutines are not affected."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


class _OwnRequests(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        return record.levelno >= logging.WARNING or not _ours.get()


_FILTER = _OwnRequests()
