"""A latency tolerance is null until an owner declares one. Existing workloads keep the 10 s of their audit entries."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0006_clock_ahead")]

    operations = [
        migrations.AlterField(
            "workload", "latency_tolerance_ms", models.PositiveIntegerField(null=True, blank=True)
        ),
    ]
