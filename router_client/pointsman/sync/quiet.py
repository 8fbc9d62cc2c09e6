"""Keeps httpx's INFO line per request out of the application's log, for the router's own requests alone.

A router polls and flushes for ever: two lines every few seconds that say nothing. The level of the logger `httpx`
belongs to the application, and stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["no_line_per_request", "quiet_httpx"]

_ours: ContextVar[bool] = ContextVar("pointsman_request", default=False)


def quiet_httpx() -> None:
    """Put the filter on httpx's logger. Once is enough; again does no harm."""
    logging.getLogger("httpx").addFilter(_FILTER)


@contextmanager
def no_line_per_request() -> Iterator[None]:
    """What httpx logs below WARNING inside is dropped. Other threads and coroutines are not concerned."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


class _OwnRequests(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        return record.levelno >= logging.WARNING or not _ours.get()


_FILTER = _OwnRequests()
