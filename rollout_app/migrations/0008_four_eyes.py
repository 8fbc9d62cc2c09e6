"""What a rollout is judged by is fixed at its proposal, and who had a part in it is kept.

Approvals of before name another binding, so they no longer count: a rollout that waits is amended and approved anew.
"""

from typing import Any

from django.db import migrations, models

WAITING = ("draft", "awaiting_approval", "scheduled")


def keep_contributors(apps: Any, schema_editor: Any) -> None:
    Rollout = apps.get_model("rollout_app", "Rollout")
    User = apps.get_model("auth", "User")
    for rollout in Rollout.objects.filter(state__in=WAITING).select_related("environment"):
        told = rollout.transitions.filter(event__in=["propose", "amend"], actor_kind="user")
        names = told.values_list("actor_label", flat=True)
        known = [str(pk) for pk in User.objects.filter(username__in=list(names)).values_list("pk", flat=True)]
        rollout.contributors = list(dict.fromkeys([rollout.proposer_user_id, *known]))
        rollout.four_eyes = rollout.environment.four_eyes
        rollout.save(update_fields=["contributors", "four_eyes"])


class Migration(migrations.Migration):
    dependencies = [
        ("rollout_app", "0007_one_word_for_one_thing"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.AddField("rollout", "contributors", models.JSONField(default=list)),
        migrations.AddField("rollout", "four_eyes", models.BooleanField(default=False)),
        migrations.AddField("rollout", "terms", models.JSONField(default=dict)),
        migrations.RunPython(keep_contributors, migrations.RunPython.noop),
    ]
