"""Rename models and columns: looks become evaluations, and no model shares a name with an engine class."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0006_evidence_is_text")]

    operations = [
        migrations.RenameModel("Guardrail", "GuardrailOverride"),
        migrations.RenameModel("Verdict", "VerdictRecord"),
        migrations.RenameModel("UncountedGroup", "DeferredGroup"),
        migrations.RenameField("Rollout", "looks", "evaluations"),
        migrations.RenameField("Rollout", "looked_at", "evaluated_at"),
        migrations.RemoveConstraint("VerdictRecord", "verdict_once"),
        migrations.RenameField("VerdictRecord", "look", "evaluation"),
        migrations.AddConstraint(
            "VerdictRecord",
            models.UniqueConstraint(fields=("rollout", "evaluation", "guardrail"), name="verdict_once"),
        ),
        migrations.AlterModelOptions("VerdictRecord", {"ordering": ["-evaluation", "guardrail"]}),
    ]
