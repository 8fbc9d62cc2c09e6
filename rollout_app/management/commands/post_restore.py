"""manage.py post_restore: let routers follow the database again after it was restored from a backup."""

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.core.errors import RolloutMoved
from policies_app.actions import start_new_epoch
from policies_app.models import Environment
from policies_app.snapshots import high_water
from rollout_app import actions
from rollout_app.engine.states import State
from rollout_app.models import Rollout

_BY_THEMSELVES = Q(state=State.RUNNING) | Q(state=State.SCHEDULED, scheduled_for__isnull=False)
_PAUSED = ("paused", "Check its share before you resume it, or roll it back.")
_CANCELLED = ("cancelled the scheduled", "Propose it again if it is still wanted.")


class Command(BaseCommand):
    help = (
        "After a restore from a backup: begin a new epoch in each environment, so that routers accept the restored "
        "state. Pause the rollouts that were running in the backup, and cancel those that would start by themselves."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="kept in the audit log")
        parser.add_argument("--environment", action="append", default=[], help="only this one (repeatable)")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = self._environments(options["environment"])
        with request_context(source="command post_restore"):
            for pk in self._moving_by_themselves(chosen):
                self._hold(pk, f"The database was restored: {options['reason']}")
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

    def _moving_by_themselves(self, environments: list[Environment]) -> list[UUID]:
        here = Rollout.objects.filter(_BY_THEMSELVES, environment__in=environments)
        return list(here.order_by("pk").values_list("pk", flat=True))

    def _hold(self, pk: UUID, reason: str) -> None:
        """Pause it, or cancel it if it has not started: it may have been rolled back or cancelled after the backup, so
        no traffic should move before a person has checked.

        An engine that still runs may move it at the same moment; then what it has become is held.
        """
        now = Rollout.objects.select_related("environment", "workload", "baseline", "candidate").filter(pk=pk)
        while (rollout := now.filter(_BY_THEMSELVES).first()) is not None:
            is_running = rollout.state == State.RUNNING
            try:
                (actions.pause_rollout if is_running else actions.cancel_rollout)(
                    rollout, actor=SYSTEM, reason=reason
                )
            except RolloutMoved:
                continue
            done, advice = _PAUSED if is_running else _CANCELLED
            self.stdout.write(
                f"{rollout.environment.name}: {done} {rollout.workload.name} v{rollout.baseline.number} → "
                f"v{rollout.candidate.number}. {advice}"
            )
