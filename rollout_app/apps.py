"""The app, its figures for Prometheus, and what a new database begins with."""

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
    """The standard plans, where there is none yet: whoever removed or changed one keeps it so."""
    from rollout_app.engine.plans import SAVED
    from rollout_app.models import Plan

    if not Plan.objects.using(using).exists():
        Plan.objects.using(using).bulk_create(
            Plan(name=name, description=description, stages=stages)
            for name, (description, stages) in SAVED.items()
        )
