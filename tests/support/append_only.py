"""Lets tests empty append-only tables: the triggers are removed for the flush between two tests, and only then.

Production code has no such switch. `conftest.py` wraps the flush in `lifted`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from controlplane.audit.triggers import PREFIX


@contextmanager
def lifted() -> Iterator[None]:
    """Remove the append-only triggers inside the block, and restore them afterwards."""
    lift, restore = _postgresql() if connection.vendor == "postgresql" else _sqlite()
    _run(lift)
    try:
        yield
    finally:
        _run(restore)


def _postgresql() -> tuple[list[str], list[str]]:
    found = _rows(f"SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname LIKE '{PREFIX}%'")
    return (
        [f"ALTER TABLE {table} DISABLE TRIGGER {name}" for table, name in found],
        [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for table, name in found],
    )


def _sqlite() -> tuple[list[str], list[str]]:
    found = _rows(f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '{PREFIX}%'")
    return [f"DROP TRIGGER {name}" for name, _ in found], [sql for _, sql in found]


def _rows(query: str) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def _run(statements: list[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
