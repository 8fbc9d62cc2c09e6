"""History is never rewritten: the database refuses to, whoever asks."""

from django.db import migrations

from controlplane.audit.triggers import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0002_rollouts")]
    operations = [AppendOnly("Transition")]
