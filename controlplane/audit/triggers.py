"""Append-only tables: triggers that refuse UPDATE, DELETE, TRUNCATE and REPLACE, on both databases.

A migration adds `AppendOnly("Entry")` after it creates the model. A refused statement raises `IntegrityError`. The
triggers prevent mistakes and make tampering deliberate; the hash chain exposes tampering by somebody who has the
database's password.

SQLite alters a table by recreating it without its triggers, so a later migration that alters such a model must end with
`AppendOnly` again. `missing` finds forgotten triggers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.apps import apps
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

PREFIX = "append_only"
APPEND_ONLY = ("audit.Entry", "audit.Checkpoint", "policies_app.PolicyVersion", "rollout_app.Transition")
_EVENTS = {"postgresql": ("row", "truncate"), "sqlite": ("update", "delete", "insert")}

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {PREFIX}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""


class AppendOnly(Operation):
    """Migration operation: from here on, rows of the model can be inserted but never changed."""

    reversible = True

    def __init__(self, model: str) -> None:
        self.model = model

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Do nothing: the model's fields do not change."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model)
        for statement in _create(schema_editor.connection.vendor, model):
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        table = from_state.apps.get_model(app_label, self.model)._meta.db_table
        for statement in _drop(schema_editor.connection.vendor, table):
            schema_editor.execute(statement, params=None)

    def describe(self) -> str:
        return f"Make rows of {self.model} append-only"

    @property
    def migration_name_fragment(self) -> str:
        return f"{self.model.lower()}_append_only"


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Return the triggers that existing tables should have but lack (PostgreSQL: or that are not always enabled)."""
    tables = {apps.get_model(label)._meta.db_table for label in APPEND_ONLY}
    tables &= set(connection.introspection.table_names())
    wanted = {f"{PREFIX}_{table}_{event}" for table in tables for event in _EVENTS[connection.vendor]}
    query = {
        "postgresql": "SELECT tgname FROM pg_trigger WHERE tgenabled = 'A'",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(query)
        return sorted(wanted - {name for (name,) in cursor.fetchall()})


def _create(vendor: str, model: type[models.Model]) -> list[str]:
    table = model._meta.db_table
    statements = _drop(vendor, table)
    if vendor == "postgresql":
        statements += [
            _FUNCTION,
            f'CREATE TRIGGER {PREFIX}_{table}_row BEFORE UPDATE OR DELETE ON "{table}" '
            f"FOR EACH ROW EXECUTE FUNCTION {PREFIX}_refuse()",
            f'CREATE TRIGGER {PREFIX}_{table}_truncate BEFORE TRUNCATE ON "{table}" '
            f"FOR EACH STATEMENT EXECUTE FUNCTION {PREFIX}_refuse()",
            # ALWAYS: `session_replication_role = replica` does not disable it.
            f'ALTER TABLE "{table}" ENABLE ALWAYS TRIGGER {PREFIX}_{table}_row',
            f'ALTER TABLE "{table}" ENABLE ALWAYS TRIGGER {PREFIX}_{table}_truncate',
        ]
        return statements
    for event in ("UPDATE", "DELETE"):
        statements.append(
            f'CREATE TRIGGER {PREFIX}_{table}_{event.lower()} BEFORE {event} ON "{table}" '
            f"BEGIN SELECT RAISE(ABORT, '{table} only grows: {event} is refused'); END"
        )
    # INSERT OR REPLACE deletes the conflicting row without firing the DELETE trigger when recursive_triggers is off,
    # which is the default in every client but ours.
    there = f'EXISTS (SELECT 1 FROM "{table}" WHERE {_same_row(model)})'  # noqa: S608 — the names are our own
    statements.append(
        f'CREATE TRIGGER {PREFIX}_{table}_insert BEFORE INSERT ON "{table}" WHEN {there} '
        f"BEGIN SELECT RAISE(ABORT, '{table} only grows: a row with this key is there'); END"
    )
    return statements


def _drop(vendor: str, table: str) -> list[str]:
    on = f' ON "{table}"' if vendor == "postgresql" else ""
    return [f"DROP TRIGGER IF EXISTS {PREFIX}_{table}_{event}{on}" for event in _EVENTS[vendor]]


def _same_row(model: type[models.Model]) -> str:
    """Return SQL that matches the stored row that the new one would replace, by any of the model's unique keys."""
    keys: list[Sequence[str]] = [[field.name] for field in model._meta.local_fields if field.unique]
    keys += [
        constraint.fields
        for constraint in model._meta.constraints
        if isinstance(constraint, models.UniqueConstraint) and constraint.condition is None
    ]
    return " OR ".join(f"({_equal(model, key)})" for key in keys)


def _equal(model: type[models.Model], names: Iterable[str]) -> str:
    columns: list[Any] = [model._meta.get_field(name) for name in names]
    return " AND ".join(f'"{field.column}" = NEW."{field.column}"' for field in columns)
