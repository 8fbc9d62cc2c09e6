"""Let approvers withdraw their approval."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0009_known_and_unknown")]

    operations = [
        migrations.AddField(
            model_name="approval",
            name="withdrawn_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
