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


def insert(database: sqlite3.Connection, row: dict[str, Any], how: str = "INSERT") -> None:
    places = ", ".join(f":{name}" for name in row)
    database.execute(f"{how} INTO audit_entry ({', '.join(row)}) VALUES ({places})", row)


def migrate(database: sqlite3.Connection, *, back: bool = False) -> None:
    editor: Any = SimpleNamespace(
        connection=SimpleNamespace(vendor="sqlite"), execute=lambda sql, params: database.execute(sql)
    )
    state: Any = SimpleNamespace(apps=apps)
    operation = AppendOnly("Entry")
    move = operation.database_backwards if back else operation.database_forwards
    move("audit", editor, state, state)


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
