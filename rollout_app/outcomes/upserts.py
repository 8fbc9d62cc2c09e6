"""Add sums to their rows. Many rows are sent as one JSON document, because binding each value costs ten times as much.

The database cannot add maps (histograms, groups), so the stored rows are read, added to and written back whole. That
is safe because every writer of these tables holds the lock that `store` takes.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from django.db import connection
from django.db.models import Model

from controlplane.core.bulk import chunks, column_type, encode, stored
from rollout_app.models import ArmTotals
from rollout_app.outcomes.aggregate import ARM_DETAILS, ARM_NUMBERS, DETAILS, NUMBERS, RunningTotals
from rollout_app.outcomes.schemas import ReportedGroup

ROWS = 1_000  # rows per statement: about 3 MB
_GROUPS = tuple(map(ARM_DETAILS.index, ("groups", "cells")))  # stored as {group: [tasks, failures]}
LARGEST = 2**63 - 1  # the largest value of a column; larger sums are capped


def _columns(model: type[Model]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the number columns and the map columns of the model."""
    return (ARM_NUMBERS, ARM_DETAILS) if model is ArmTotals else (NUMBERS, DETAILS)


def add_to_rows(model: type[Model], sums: Mapping[Any, RunningTotals]) -> None:
    """Add each key's sums to its row, in key order. Keys are named tuples whose fields are the key columns."""
    for keys in chunks(sorted(sums), ROWS):
        fields = keys[0]._fields
        _add_stored(model, fields, keys, sums)
        numbers, details = _columns(model)
        columns = (*fields, *numbers, *details)
        rows = [dict(zip(columns, (*_stored(key), *_as_row(sums[key])), strict=True)) for key in keys]
        with connection.cursor() as cursor:
            cursor.execute(_upsert(model, fields), [encode(rows)])


def _add_stored(
    model: type[Model], fields: tuple[str, ...], keys: Sequence[Any], sums: Mapping[Any, RunningTotals]
) -> None:
    """Add the stored rows to the sums."""
    columns = (*fields, "number")
    rows = [dict(zip(columns, (*_stored(key), number), strict=True)) for number, key in enumerate(keys)]
    with connection.cursor() as cursor:
        cursor.execute(_select(model, fields), [encode(rows)])
        for number, *row in cursor.fetchall():
            sums[keys[number]].add(*_from_row(model, row))


def _stored(key: Any) -> tuple[Any, ...]:
    """Return the key as the database stores it: SQLite compares times as text."""
    return (*key[:2], stored(key.minute), *key[3:])


def _as_row(sums: RunningTotals) -> list[Any]:
    numbers = [min(number, LARGEST) if type(number) is int else number for number in sums.numbers]
    details: list[Any] = list(sums.details)
    for at in _GROUPS:
        if at < len(details) and details[at]:
            details[at] = {name: (group.tasks, group.failures) for name, group in details[at].items()}
    return numbers + details


def _from_row(model: type[Model], row: Sequence[Any]) -> tuple[Sequence[int | float], Sequence[Any]]:
    numbers, _ = _columns(model)
    details = [{} if text == "{}" else msgspec.json.decode(text) for text in row[len(numbers) :]]
    for at in _GROUPS:
        if at < len(details) and details[at]:
            details[at] = {name: ReportedGroup(*pair) for name, pair in details[at].items()}
    return row[: len(numbers)], details


# Only our own table and column names are formatted in; values are bound.


@cache
def _upsert(model: type[Model], key_fields: tuple[str, ...]) -> str:
    numbers, details = _columns(model)
    columns = [*key_fields, *numbers, *details]
    updates = ", ".join(f"{name} = excluded.{name}" for name in (*numbers, *details))
    # Without WHERE true, SQLite parses ON CONFLICT as a join condition.
    return (
        f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) "  # noqa: S608
        f"SELECT {', '.join(columns)} FROM {rows_of(model, columns)} WHERE true "
        f"ON CONFLICT ({', '.join(key_fields)}) DO UPDATE SET {updates}"
    )


@cache
def _select(model: type[Model], key_fields: tuple[str, ...]) -> str:
    matches = " AND ".join(f"t.{name} = rows.{name}" for name in key_fields)
    numbers, details = _columns(model)
    return (
        f"SELECT rows.number, {', '.join(f't.{name}' for name in (*numbers, *details))} "  # noqa: S608
        f"FROM {rows_of(model, [*key_fields, 'number'])} JOIN {model._meta.db_table} t ON {matches}"
    )


def rows_of(model: type[Model], columns: Sequence[str]) -> str:
    """Return SQL for a table `rows` with these columns, from one parameter: a JSON list of objects.

    Columns that are not in the model are integers.
    """
    if connection.vendor == "postgresql":
        typed = ", ".join(f"{name} {column_type(model, name)}" for name in columns)
        return f"json_to_recordset(%s::json) AS rows({typed})"
    picked = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
    return f"(SELECT {picked} FROM json_each(%s)) AS rows"  # noqa: S608
