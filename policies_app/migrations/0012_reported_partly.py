from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0011_planned_freeze")]

    operations = [
        migrations.AddField(
            model_name="router",
            name="reported_partly_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
