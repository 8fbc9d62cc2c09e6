"""A change freeze can be planned: it begins at `frozen_from`."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0010_prices_are_optional")]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="frozen_from",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
