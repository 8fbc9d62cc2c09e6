"""Fix the judging criteria of a rollout at its proposal, and record its contributors.

Existing approvals have a different binding, so they no longer count: a waiting rollout must be amended and approved
again.
"""

import json
from typing import Any

from django.db import migrations, models

ENDED = ("rejected", "rolled_back", "aborted", "completed", "cancelled")
PROPOSING = ("rollout.draft", "rollout.propose", "rollout.amend")


def keep_contributors(apps: Any, schema_editor: Any) -> None:
    """Fill in the contributors from the audit log, which has the person behind each proposal and amendment."""
    rollouts = {str(row.pk): row for row in apps.get_model("rollout_app", "Rollout").objects.all()}
    entries = apps.get_model("audit", "Entry").objects.filter(action__in=PROPOSING, outcome="done")
    for target, body in entries.order_by("seq").values_list("target_id", "body").iterator():
        rollout = rollouts.get(target)
        person = json.loads(bytes(body))["actor"]["user_id"]
        if rollout is not None and person not in rollout.contributors:
            rollout.contributors = [*rollout.contributors, person]
    four_eyes = dict(apps.get_model("policies_app", "Environment").objects.values_list("pk", "four_eyes"))
    for rollout in rollouts.values():
        rollout.four_eyes = rollout.state not in ENDED and four_eyes[rollout.environment_id]
        rollout.save(update_fields=["contributors", "four_eyes"])


class Migration(migrations.Migration):
    dependencies = [
        ("rollout_app", "0007_one_word_for_one_thing"),
        ("audit", "0001_initial"),
        ("policies_app", "0001_initial"),
    ]

    operations = [
        migrations.AddField("rollout", "contributors", models.JSONField(default=list)),
        migrations.AddField("rollout", "four_eyes", models.BooleanField(default=False)),
        migrations.AddField("rollout", "terms", models.JSONField(default=dict)),
        migrations.RunPython(keep_contributors, migrations.RunPython.noop),
    ]
