"""A policy version never changes: triggers in the database refuse every update and deletion."""

from django.db import migrations

from controlplane.audit.triggers import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0001_initial")]
    operations = [AppendOnly("PolicyVersion")]
