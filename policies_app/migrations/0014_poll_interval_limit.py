import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0013_mirror_budget")]

    operations = [
        migrations.AlterField(
            model_name="environment",
            name="poll_interval_ms",
            field=models.PositiveIntegerField(
                default=10_000,
                validators=[
                    django.core.validators.MinValueValidator(200),
                    django.core.validators.MaxValueValidator(300_000),
                ],
            ),
        ),
    ]
