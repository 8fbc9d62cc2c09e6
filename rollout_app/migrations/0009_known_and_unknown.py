"""Columns for grades, decisions, differing tasks, endpoints and units, as routers report them. Missing is unknown."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import rollout_app.models

WHOLE = (
    "graded_n", "graded_successes", "graded_sum", "graded_on_success", "graded_capped_sum",
    "graded_capped_on_success", "differing_known", "tracked",
)  # fmt: skip
REAL = ("graded_sum_sq", "graded_capped_sum_sq")
OF_ARM = ("decided", "decided_differing", "decided_differing_known")


def fields() -> list[tuple[str, str, models.Field]]:
    """Return (model, name, field) of every new column."""
    found: list[tuple[str, str, models.Field]] = []
    for model in ("OutcomeBucket", "ArmTotals"):
        found += [(model, name, models.BigIntegerField(default=0)) for name in WHOLE]
        found += [(model, name, models.FloatField(default=0)) for name in REAL]
        found.append((model, "differing", rollout_app.models.TextJSON(default=dict)))
    found += [("ArmTotals", name, models.BigIntegerField(default=0)) for name in OF_ARM]
    found += [
        ("ArmTotals", name, rollout_app.models.TextJSON(default=dict)) for name in ("endpoints", "cells")
    ]
    return found


def add_columns(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Add the columns with a default in the database. Django would copy each table once per column on SQLite."""
    for model, name, field in fields():
        table = apps.get_model("rollout_app", model)._meta.db_table
        default = "'{}'" if isinstance(field, models.TextField) else "0"
        column = field.db_type(schema_editor.connection)
        schema_editor.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {column} NOT NULL DEFAULT {default}')
    # If every task had a cost and a grade, the new sums follow from the stored ones.
    for table in ("rollout_app_outcomebucket", "rollout_app_armtotals"):
        schema_editor.execute(
            f"UPDATE {table} SET graded_n = cost_n, graded_successes = successes, graded_sum = cost_sum, "  # noqa: S608
            "graded_sum_sq = cost_sum_sq, graded_on_success = cost_on_success, graded_capped_sum = capped_sum, "
            "graded_capped_sum_sq = capped_sum_sq, graded_capped_on_success = capped_on_success "
            "WHERE cost_n = tasks AND ungraded = 0"
        )


def drop_columns(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for model, name, _ in fields():
        table = apps.get_model("rollout_app", model)._meta.db_table
        schema_editor.execute(f'ALTER TABLE {table} DROP COLUMN "{name}"')


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0008_four_eyes")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(add_columns, drop_columns)],
            state_operations=[migrations.AddField(model, name, field) for model, name, field in fields()],
        )
    ]
