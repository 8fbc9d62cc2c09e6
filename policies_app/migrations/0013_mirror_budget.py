import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0012_reported_partly")]

    operations = [
        migrations.AddField(
            model_name="workload",
            name="mirror_budget_usd",
            field=models.DecimalField(
                blank=True,
                decimal_places=2,
                max_digits=12,
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
    ]
