"""Rewrite the saved plans that earlier releases created, where nobody has changed them.

Every plan gets today's description. `evidence` also gets today's stages: it used to start at 2 %, now at 3 %.
"""

from typing import Any

from django.db import migrations

NEW_FIELDS = {"skippable": False, "tolerance": 1.0}  # fields that the first release's stages lack


def _stage(
    mode: str, percent: int, minutes: int, tasks: int, hours: int | None, **more: Any
) -> dict[str, Any]:
    return {
        "mode": mode,
        "share_pcm": 1_000 * percent,
        "min_minutes": minutes,
        "min_tasks": tasks,
        "max_hours": hours,
        "on_timeout": "hold",
        "approval": False,
        "mirror_pcm": 0,
        **NEW_FIELDS,
        **more,
    }


def _steps(*percents: int, hours: int = 72) -> list[dict[str, Any]]:
    return [_stage("percentage", percent, 15, 50, hours) for percent in percents]


def _evidence(*percents: int) -> list[dict[str, Any]]:
    ladder = [_stage("percentage", percent, 5, 50, 72, skippable=True) for percent in percents]
    return [SHADOW, *ladder, FULL]


SHADOW = _stage("shadow", 0, 15, 200, 72)
BAKE = _stage("percentage", 95, 60, 50, 168)
FULL = _stage("full", 100, 0, 0, None)
LADDER = (3, 4, 6, 8, 10, 13, 17, 22, 28, 36, 50)
SLOW = _steps(25, 50, hours=336)
TRIAL = [
    _stage("shadow", 0, 1, 20, 24),
    _stage("percentage", 50, 2, 50, 24),
    _stage("full", 100, 0, 0, None, tolerance=5.0),
]

# (name, description, stages) as an earlier release saved them -> (description, stages) from now on.
REWRITTEN = [
    (
        "cautious",
        "Shadow, then 1, 5, 25, 50, 95 % and full: for work where each bad answer costs.",
        [SHADOW, *_steps(1, 5, 25, 50), BAKE, FULL],
        "Shadow, then 1, 5, 25, 50 and 95 % before full. For workloads where every wrong answer is expensive.",
        [SHADOW, *_steps(1, 5, 25, 50), BAKE, FULL],
    ),
    (
        "standard",
        "Shadow, then 5, 25, 50, 95 % and full.",
        [SHADOW, *_steps(5, 25, 50), BAKE, FULL],
        "Shadow, then 5, 25, 50 and 95 % before full.",
        [SHADOW, *_steps(5, 25, 50), BAKE, FULL],
    ),
    (
        "low-traffic",
        "Shadow, then 25, 50 % and full: wide slices, so that a few tasks an hour are evidence too.",
        [SHADOW, *SLOW, FULL],
        "Shadow, then 25 and 50 % before full. The shares are large, so a few tasks an hour are enough.",
        [SHADOW, *SLOW, FULL],
    ),
    (
        "evidence",
        "Shadow, then as fast as the evidence allows, from 2 % on: harm to all traffic stays within the margins.",
        _evidence(2, *LADDER),
        "Shadow, then as fast as the evidence allows, starting at 3 %. Harm to all traffic stays within the margins.",
        _evidence(*LADDER),
    ),
    (
        "evidence",
        "Shadow, then as fast as the evidence allows, from 3 % on: harm to all traffic stays within the margins.",
        _evidence(*LADDER),
        "Shadow, then as fast as the evidence allows, starting at 3 %. Harm to all traffic stays within the margins.",
        _evidence(*LADDER),
    ),
    (
        "trial",
        "For a first try: minutes and a few hundred tasks. It accepts five times the harm; not for production.",
        TRIAL,
        "For a first try: takes minutes and a few hundred tasks. Accepts five times the harm: not for production.",
        TRIAL,
    ),
    (
        "immediate",
        "Full at once, with nothing to compare it to: for reverts.",
        [FULL],
        "Full at once, without a comparison. For reverts.",
        [FULL],
    ),
]


def rewrite(apps: Any, schema_editor: Any) -> None:
    """Rewrite the rows that still hold exactly what was saved and that no audit entry describes."""
    using = schema_editor.connection.alias
    plans = apps.get_model("rollout_app", "Plan").objects.using(using)
    entries = apps.get_model("audit", "Entry").objects.using(using).filter(target_kind="plan", outcome="done")
    for name, old, old_stages, description, stages in REWRITTEN:
        plan = plans.filter(name=name, version=1, description=old).first()
        if plan is None or _filled(plan.stages) != old_stages or entries.filter(target_id=name).exists():
            continue
        plan.description = description
        if stages != old_stages:
            plan.stages = stages
        plan.save(update_fields=["description", "stages"])


def _filled(stages: Any) -> Any:
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return stages  # changed by hand
    return [NEW_FIELDS | stage for stage in stages]


class Migration(migrations.Migration):
    dependencies = [("rollout_app", "0010_withdrawn_approvals"), ("audit", "0001_initial")]

    operations = [migrations.RunPython(rewrite, migrations.RunPython.noop)]
