"""Transitions are append-only: the database refuses to change or delete them."""

from django.db import migrations

from controlplane.audit.triggers import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0002_rollouts")]
    operations = [AppendOnly("Transition")]
