import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("policies_app", "0002_versions_only_grow"),
    ]

    operations = [
        migrations.CreateModel(
            name="Published",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("address", models.CharField(blank=True, default="", max_length=400)),
                ("epoch", models.CharField(blank=True, default="", max_length=36)),
                ("revision", models.BigIntegerField(default=-1)),
                ("poll_interval_ms", models.PositiveIntegerField(default=0)),
                ("key_id", models.CharField(blank=True, default="", max_length=16)),
                ("tag", models.CharField(blank=True, default="", max_length=200)),
                ("published_at", models.DateTimeField(blank=True, null=True)),
                ("looked_at", models.DateTimeField(blank=True, null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("failing_since", models.DateTimeField(blank=True, null=True)),
                ("retry_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.CharField(blank=True, default="", max_length=400)),
                ("claim", models.UUIDField(blank=True, null=True)),
                ("claimed_until", models.DateTimeField(blank=True, null=True)),
                (
                    "environment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="published",
                        to="policies_app.environment",
                    ),
                ),
            ],
        ),
    ]
