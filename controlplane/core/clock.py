"""What time it is, asked of the database: every process and every machine gets the same answer."""

import time
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection

# `clock_timestamp()`, not `now()`: the latter stands still within a transaction, so two entries of one
# transaction would carry the time of its start.
_QUERIES = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}


def now() -> datetime:
    """The database's clock, in UTC; to the microsecond on PostgreSQL, to the millisecond on SQLite.

    With `CLOCK = "process"` (tests that travel in time) it is this process's clock.
    """
    if settings.CLOCK == "process":
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute(_QUERIES[connection.vendor])
        (value,) = cursor.fetchone()
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class RunningClock:
    """The database's clock, kept running between two looks at it by this process's monotonic clock.

    For what must not cost a query: the data plane judges each minute that a router reports. The clock of the
    machine plays no part, so a gateway that is a day behind drops nothing.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None  # seconds: the database's Unix time less `time.monotonic()`

    def sync(self) -> None:
        """Ask the database. The `FleetWriter` does, every few seconds."""
        before = time.monotonic()
        at = now()
        self._ahead = at.timestamp() - (before + time.monotonic()) / 2

    def now(self) -> datetime | None:
        """None until the database was asked."""
        if settings.CLOCK == "process":
            return datetime.now(UTC)
        return None if self._ahead is None else datetime.fromtimestamp(time.monotonic() + self._ahead, UTC)


running = RunningClock()
