"""A policy version never changes: the database refuses to, whoever asks."""

from django.db import migrations

from controlplane.audit.triggers import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("policies_app", "0001_initial")]
    operations = [AppendOnly("PolicyVersion")]
