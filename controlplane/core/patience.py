"""How long a thread waits for the database's answer, before it gives the connection up.

`statement_timeout` is kept by the server, and a server that is gone, or behind a proxy that holds the connection and
says nothing, keeps nothing. Keepalives and TCP_USER_TIMEOUT (settings) find a dead host; this finds the rest. Only
PostgreSQL: SQLite has nobody in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

# Longer than statement_timeout: a statement that is only slow is ended by the server, with its name.
LONG_S = 35.0
# For threads whose statements are all short, and without which the process is blind: given up within ten seconds.
SHORT_S = 9.0

_seconds: ContextVar[float] = ContextVar("patience", default=LONG_S)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Statements in here are given so long."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


def limit(sender: Any, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receives `connection_created`."""
    if connection.vendor == "postgresql":
        raw: Any = connection.connection
        raw.wait = partial(_wait, raw)


def _wait(
    raw: "psycopg.Connection[Any]", generator: Any, interval: float = 0.1, timeout: float | None = None
) -> Any:
    seconds = _seconds.get() if timeout is None else timeout
    try:
        return type(raw).wait(raw, generator, interval=interval, timeout=seconds)
    except psycopg.errors._WaitTimeout:
        raw.close()  # what it is in the middle of is not known
        raise psycopg.OperationalError(f"The database has not answered for {seconds:g} s.") from None
