"""Store evidence as text, because nothing queries inside it: as jsonb, PostgreSQL would parse every number."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import rollout_app.models


def keep_plain(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Store new values uncompressed. Existing values change with their rollout's next evaluation."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE rollout_app_rollout ALTER COLUMN evidence SET STORAGE EXTERNAL")


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0005_uncounted_groups")]
    operations = [
        migrations.AlterField("rollout", "evidence", rollout_app.models.TextJSON(blank=True, default=dict)),
        migrations.AlterField("verdict", "data", rollout_app.models.TextJSON()),
        migrations.AlterField(
            "verdict",
            "rollout",
            models.ForeignKey(
                "rollout_app.rollout",
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="verdicts",
            ),
        ),
        migrations.RunPython(keep_plain, migrations.RunPython.noop),
    ]
