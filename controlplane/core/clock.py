"""The current time, read from the database, so that every process on every machine agrees."""

import time
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection

# `clock_timestamp()`, not `now()`: `now()` is constant within a transaction, so all entries written in one
# transaction would carry its start time.
_QUERIES = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}


def now() -> datetime:
    """Return the database's time in UTC, with microseconds on PostgreSQL and milliseconds on SQLite.

    With `CLOCK = "process"` (for tests that travel in time) it is this process's clock.
    """
    if settings.CLOCK == "process":
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute(_QUERIES[connection.vendor])
        (value,) = cursor.fetchone()
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class RunningClock:
    """The database's clock, carried forward by this process's monotonic clock between two queries.

    For code that cannot afford a query: the data plane checks every minute that a router reports. The machine's own
    clock is not used, so a gateway whose clock is a day behind drops nothing.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None  # seconds: the database's Unix time minus `time.monotonic()`

    def sync(self) -> None:
        """Query the database. The `FleetWriter` calls this every few seconds."""
        before = time.monotonic()
        at = now()
        self._ahead = at.timestamp() - (before + time.monotonic()) / 2

    def now(self) -> datetime | None:
        """Return the current time, or None before the first `sync`."""
        if settings.CLOCK == "process":
            return datetime.now(UTC)
        return None if self._ahead is None else datetime.fromtimestamp(time.monotonic() + self._ahead, UTC)


running = RunningClock()
