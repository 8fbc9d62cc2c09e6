import django.core.validators
from django.db import migrations, models

import policies_app.models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0016_measured_since")]

    operations = [
        migrations.AlterField(
            model_name="environment",
            name="poll_interval_ms",
            field=models.PositiveIntegerField(
                default=policies_app.models.default_poll_interval_ms,
                validators=[
                    django.core.validators.MinValueValidator(200),
                    django.core.validators.MaxValueValidator(300_000),
                ],
            ),
        ),
    ]
