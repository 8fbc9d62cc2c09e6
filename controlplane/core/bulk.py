"""Many rows in one statement: `VALUES` lists, the same on PostgreSQL and SQLite."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.db import connection

T = TypeVar("T")


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def places(rows: Sequence[Sequence[Any]]) -> str:
    """`(%s, %s), (%s, %s)`: what stands after VALUES. Not for no rows: SQL has no empty VALUES."""
    one = f"({', '.join(['%s'] * len(rows[0]))})"
    return ", ".join([one] * len(rows))


def flat(rows: Iterable[Sequence[Any]]) -> list[Any]:
    return [value for row in rows for value in row]


def stored(at: datetime) -> Any:
    """A time as the database's driver takes it."""
    return connection.ops.adapt_datetimefield_value(at)
