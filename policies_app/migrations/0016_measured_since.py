from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0015_names_and_reasons")]

    operations = [
        migrations.AddField(
            model_name="workload",
            name="measured_since",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
