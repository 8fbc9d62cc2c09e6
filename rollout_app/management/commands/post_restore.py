"""manage.py post_restore: let routers follow the database again after it was restored from a backup."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.core.errors import RolloutMoved
from policies_app.actions import start_new_epoch
from policies_app.models import Environment
from policies_app.snapshots import high_water
from rollout_app import actions
from rollout_app.engine.states import State
from rollout_app.models import Rollout


class Command(BaseCommand):
    help = (
        "After a restore from a backup: begin a new epoch in each environment, so that routers accept the restored "
        "state, and pause the rollouts that were running in the backup."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="kept in the audit log")
        parser.add_argument("--environment", action="append", default=[], help="only this one (repeatable)")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = self._environments(options["environment"])
        with request_context(source="command post_restore"):
            for rollout in self._running(chosen):
                self._pause(rollout, options["reason"])
            for environment in chosen:
                begun = start_new_epoch(environment, actor=SYSTEM, reason=options["reason"])
                self.stdout.write(f"{begun.name}: a new epoch at revision {begun.revision}.")
        try:
            high_water.forget(environment.name for environment in chosen)
        except OSError as error:
            self.stderr.write(f"{high_water.file()} cannot be written: {error}")
        self.stdout.write(
            "Routers receive the restored state with their next poll. Changes made after the backup are lost; "
            "docs/how-to/restore.md lists what to check."
        )

    def _environments(self, names: list[str]) -> list[Environment]:
        found = Environment.objects.order_by("name")
        if not names:
            return list(found)
        if unknown := set(names) - set(found.values_list("name", flat=True)):
            raise CommandError(f"There is no environment {', '.join(sorted(unknown))}.")
        return list(found.filter(name__in=names))

    def _running(self, environments: list[Environment]) -> list[Rollout]:
        running = Rollout.objects.filter(environment__in=environments, state=State.RUNNING)
        return list(running.select_related("environment", "workload", "baseline", "candidate"))

    def _pause(self, rollout: Rollout, reason: str) -> None:
        """Pause it: it may have been rolled back after the backup, so no traffic should move before a person has
        checked.
        """
        try:
            actions.pause_rollout(rollout, actor=SYSTEM, reason=f"The database was restored: {reason}")
        except RolloutMoved:
            return  # a person was first
        self.stdout.write(
            f"{rollout.environment.name}: paused {rollout.workload.name} v{rollout.baseline.number} → "
            f"v{rollout.candidate.number}. Check its share before you resume it, or roll it back."
        )
