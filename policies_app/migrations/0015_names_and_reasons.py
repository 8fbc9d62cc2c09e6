from django.db import migrations, models

import controlplane.core.names


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0014_poll_interval_limit")]

    operations = [
        migrations.AlterField(
            model_name="environment",
            name="freeze_reason",
            field=models.CharField(
                blank=True,
                default="",
                max_length=200,
                validators=[controlplane.core.names.validate_text],
            ),
        ),
        migrations.AlterField(
            model_name="workload",
            name="name",
            field=models.SlugField(
                max_length=120,
                unique=True,
                validators=[controlplane.core.names.validate_policy_name],
            ),
        ),
    ]
