"""The triggers of append-only tables, as a migration makes them. On SQLite in a database of their own."""

import sqlite3
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps

from controlplane.audit.models import Entry
from controlplane.audit.triggers import AppendOnly

COLUMNS = [str(field.column) for field in Entry._meta.local_fields]
UNIQUE = ["id", "seq", "prev_hash", "hash"]


def values(number: int) -> dict[str, Any]:
    return {name: f"{name} {number}" for name in COLUMNS} | {"id": number, "seq": 10 * number}


@pytest.fixture
def table() -> Iterator[sqlite3.Connection]:
    """A table of entries with two rows, without Django's connection and its settings."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    kinds = [f"{name} UNIQUE" if name in UNIQUE else name for name in COLUMNS]
    database.execute(f"CREATE TABLE audit_entry ({', '.join(kinds)})")
    for number in (1, 2):
        insert(database, values(number))
    yield database
    database.close()


def insert(
    database: sqlite3.Connection, row: dict[str, Any], how: str = "INSERT", table: str = "audit_entry"
) -> None:
    places = ", ".join(f":{name}" for name in row)
    database.execute(f"{how} INTO {table} ({', '.join(row)}) VALUES ({places})", row)


def migrate(
    database: sqlite3.Connection, *, back: bool = False, app: str = "audit", model: str = "Entry"
) -> None:
    editor: Any = SimpleNamespace(
        connection=SimpleNamespace(vendor="sqlite"), execute=lambda sql, params: database.execute(sql)
    )
    state: Any = SimpleNamespace(apps=apps)
    operation = AppendOnly(model)
    move = operation.database_backwards if back else operation.database_forwards
    move(app, editor, state, state)


REFUSED = {
    "UPDATE": "UPDATE audit_entry SET reason = 'other' WHERE seq = 20",
    "DELETE": "DELETE FROM audit_entry WHERE seq = 20",
}


@pytest.mark.parametrize("event", REFUSED)
def test_rows_cannot_be_changed_or_removed(event: str, table: sqlite3.Connection) -> None:
    migrate(table)
    with pytest.raises(sqlite3.IntegrityError, match=f"audit_entry only grows: {event} is refused"):
        table.execute(REFUSED[event])


@pytest.mark.parametrize("column", UNIQUE)
def test_rows_cannot_be_replaced_by_any_key(column: str, table: sqlite3.Connection) -> None:
    migrate(table)
    with pytest.raises(sqlite3.IntegrityError, match="a row with this key is there"):
        insert(table, values(3) | {column: values(2)[column]}, "INSERT OR REPLACE")
    insert(table, values(3), "INSERT OR REPLACE")
    assert table.execute("SELECT count(*) FROM audit_entry").fetchone() == (3,)


def test_a_migration_may_repeat_it_and_takes_it_back(table: sqlite3.Connection) -> None:
    migrate(table)
    migrate(table)
    migrate(table, back=True)
    assert table.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (0,)
    for statement in REFUSED.values():
        table.execute(statement)


# --- keys of several columns --------------------------------------------------------------------------------


def made_of(label: str) -> tuple[sqlite3.Connection, list[str]]:
    """Return a database with the append-only table of a model, and the table's columns."""
    app, name = label.split(".")
    model = apps.get_model(app, name)
    columns = [str(field.column) for field in model._meta.local_fields]
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute(f"CREATE TABLE {model._meta.db_table} ({', '.join(columns)})")
    migrate(database, app=app, model=name)
    return database, columns


@pytest.mark.parametrize("key", [("workload_id", "number"), ("workload_id", "digest")])
def test_rows_cannot_be_replaced_by_a_key_of_several_columns(key: tuple[str, str]) -> None:
    database, columns = made_of("policies_app.PolicyVersion")
    first, second = ({name: f"{name} {number}" for name in columns} for number in (1, 2))
    insert(database, first, table="policies_app_policyversion")
    for name in key:  # one of them alone is not a key
        insert(database, second | {"id": name, name: first[name]}, table="policies_app_policyversion")
    with pytest.raises(sqlite3.IntegrityError, match="a row with this key is there"):
        insert(database, second | {name: first[name] for name in key}, table="policies_app_policyversion")


def test_a_key_of_some_rows_only_does_not_count() -> None:
    """There is one active rollout of a workload in an environment, and any number of ended ones."""
    database, columns = made_of("rollout_app.Rollout")
    for number in (1, 2):
        insert(database, dict.fromkeys(columns, "same") | {"id": number}, table="rollout_app_rollout")
    assert database.execute("SELECT count(*) FROM rollout_app_rollout").fetchone() == (2,)
