"""What time it is, asked of the database: every process and every machine gets the same answer."""

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
