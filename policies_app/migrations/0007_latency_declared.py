"""A latency tolerance is what an owner declared. The default of 10 s, which nothing has read so far, becomes none."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def forget_the_default(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("policies_app", "Workload").objects.filter(latency_tolerance_ms=10_000).update(
        latency_tolerance_ms=None
    )


def give_the_default(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("policies_app", "Workload").objects.filter(latency_tolerance_ms=None).update(
        latency_tolerance_ms=10_000
    )


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0006_clock_ahead")]

    operations = [
        migrations.AlterField(
            "workload", "latency_tolerance_ms", models.PositiveIntegerField(null=True, blank=True)
        ),
        migrations.RunPython(forget_the_default, give_the_default),
    ]
