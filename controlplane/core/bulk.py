"""Many rows in one statement, on PostgreSQL and SQLite."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from django.db import connection
from django.db.models import Model

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


def table_of(rows: Sequence[Sequence[Any]], types: Sequence[str]) -> tuple[str, list[Any]]:
    """Return SQL for a table `v` with `column1`, `column2`, … and its parameters. `rows` must not be empty.

    `types` are PostgreSQL's. There the rows are one JSON document, because the driver searches a statement for its
    placeholders: with thousands of them that took 7 % of a sweep. A value of a `jsonb` column is a JSON text.
    """
    if connection.vendor != "postgresql":
        return f"(VALUES {places(rows)}) AS v", flat(rows)
    columns = [(f"column{at}", type_) for at, type_ in enumerate(types, 1)]
    document = [
        {
            name: msgspec.Raw(value.encode()) if type_ == "jsonb" else value
            for (name, type_), value in zip(columns, row, strict=True)
        }
        for row in rows
    ]
    typed = ", ".join(f"{name} {type_}" for name, type_ in columns)
    return f"json_to_recordset(%s::json) AS v({typed})", [encode(document)]


def column_type(model: type[Model], column: str) -> str:
    """Return the database's type of a column; `integer` if the model has no such column."""
    for field in model._meta.concrete_fields:
        if field.column == column:
            return str(field.db_type(connection))
    return "integer"


def encode(document: Sequence[Any]) -> str:
    return msgspec.json.encode(document).decode()
