"""The app config: registers metrics and audit subjects, and saves the standard plans in a new database."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RolloutConfig(AppConfig):
    name = "rollout_app"

    def ready(self) -> None:
        from controlplane.core import figures
        from rollout_app import audited
        from rollout_app.figures import RolloutFigures

        figures.register(RolloutFigures())
        audited.register()
        post_migrate.connect(_save_plans, sender=self, dispatch_uid="saved plans")


def _save_plans(using: str, **_: Any) -> None:
    """Save the standard plans if there are no plans yet. Removed or changed plans stay as they are."""
    from rollout_app.engine.plans import SAVED
    from rollout_app.models import Plan

    if not Plan.objects.using(using).exists():
        Plan.objects.using(using).bulk_create(
            Plan(name=name, description=description, stages=stages)
            for name, (description, stages) in SAVED.items()
        )
