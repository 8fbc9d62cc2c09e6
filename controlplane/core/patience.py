"""How long a thread waits for the database's answer before it drops the connection.

The server enforces `statement_timeout`. It cannot do so when it is gone, or when a proxy keeps the connection open
without answering. Keepalives and TCP_USER_TIMEOUT (settings) detect a dead host; this detects the rest. PostgreSQL
only: SQLite has no network in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

# Longer than statement_timeout: the server ends a statement that is merely slow, with a clear error.
LONG_S = 35.0
# For threads that run only short statements and without which the process is blind: they give up within ten seconds.
SHORT_S = 9.0

_seconds: ContextVar[float] = ContextVar("patience", default=LONG_S)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Set how long statements inside the block may wait for an answer."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


def limit(sender: Any, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of `connection_created`: make the connection's waits time out."""
    if connection.vendor == "postgresql":
        raw: Any = connection.connection
        raw.wait = partial(_wait, raw)


def lift(connection: BaseDatabaseWrapper) -> None:
    """Let this connection's statements run, and wait for locks, without a time limit: a migration may take hours."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"
            )
        raw: Any = connection.connection
        raw.wait = partial(type(raw).wait, raw)


def _wait(
    raw: "psycopg.Connection[Any]", generator: Any, interval: float = 0.1, timeout: float | None = None
) -> Any:
    seconds = _seconds.get() if timeout is None else timeout
    try:
        return type(raw).wait(raw, generator, interval=interval, timeout=seconds)
    except psycopg.errors._WaitTimeout:
        raw.close()  # its state is unknown
        raise psycopg.OperationalError(f"The database has not answered for {seconds:g} s.") from None
