"""Groups that were accepted under load and wait to be counted."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0004_what_a_look_asks_for")]
    operations = [
        migrations.CreateModel(
            name="UncountedGroup",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("body", models.BinaryField()),
                ("at", models.DateTimeField(db_default=Now(), db_index=True)),
            ],
        ),
    ]
