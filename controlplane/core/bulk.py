"""Write many rows in one statement, with `VALUES` lists that work on PostgreSQL and SQLite."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.db import connection

T = TypeVar("T")


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def places(rows: Sequence[Sequence[Any]]) -> str:
    """Return the placeholders after VALUES: `(%s, %s), (%s, %s)`. `rows` must not be empty: SQL has no empty VALUES."""
    one = f"({', '.join(['%s'] * len(rows[0]))})"
    return ", ".join([one] * len(rows))


def flat(rows: Iterable[Sequence[Any]]) -> list[Any]:
    return [value for row in rows for value in row]


def stored(at: datetime) -> Any:
    """Convert a time to the database driver's representation."""
    return connection.ops.adapt_datetimefield_value(at)
