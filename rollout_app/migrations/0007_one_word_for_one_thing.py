"""Names only: looks are evaluations, stored verdicts and overrides are no namesakes of the engine's. No row changes."""

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
