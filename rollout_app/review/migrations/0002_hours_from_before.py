"""Mark the hours of outcomes that are older than the rollups, so that the job rolls them up."""

from typing import Any

from django.db import migrations
from django.db.models.functions import TruncHour


def mark(apps: Any, schema_editor: Any) -> None:
    totals = apps.get_model("rollout_app", "ArmTotals").objects.using(schema_editor.connection.alias)
    states = apps.get_model("review", "HourState")
    hours = (
        totals.annotate(hour=TruncHour("minute")).order_by().values_list("environment", "workload", "hour")
    )
    rows = (
        states(environment_id=environment, workload_id=workload, hour=hour)
        for environment, workload, hour in hours.distinct().iterator()
    )
    states.objects.using(schema_editor.connection.alias).bulk_create(rows, batch_size=500)


class Migration(migrations.Migration):
    dependencies = [("review", "0001_initial"), ("rollout_app", "0007_one_word_for_one_thing")]
    operations = [migrations.RunPython(mark, migrations.RunPython.noop, elidable=True)]
