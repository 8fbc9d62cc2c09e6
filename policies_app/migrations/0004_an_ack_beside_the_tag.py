from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("policies_app", "0003_published"),
    ]

    operations = [
        migrations.AddField(
            model_name="router",
            name="acked_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="router",
            name="acked_epoch",
            field=models.CharField(blank=True, default="", max_length=36),
        ),
        migrations.AddField(
            model_name="router",
            name="acked_revision",
            field=models.BigIntegerField(default=0),
        ),
    ]
