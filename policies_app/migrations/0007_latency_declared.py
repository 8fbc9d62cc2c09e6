"""A latency tolerance is what an owner declares. Workloads of before keep the 10 s that the log says they have."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0006_clock_ahead")]

    operations = [
        migrations.AlterField(
            "workload", "latency_tolerance_ms", models.PositiveIntegerField(null=True, blank=True)
        ),
    ]
