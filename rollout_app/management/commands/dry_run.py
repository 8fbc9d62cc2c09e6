"""`manage.py dry_run`: what other margins would have done to a past rollout. Reads only.

    manage.py dry_run 0199… --margin failure:1 --margin cost_per_success:5 --off latency_tail

A margin is in points (failure, error, escalation, fallback, retry, latency_tail, cost_tail) or in per cent
(cost_per_success, quality). Other guardrails stay as they were in that rollout.
"""

import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.core.errors import PointsmanError
from pointsman.visible import one_line
from rollout_app.models import Rollout
from rollout_app.rehearsal.dry_run import dry_run


class Command(BaseCommand):
    help = "Judge a past rollout's outcomes again, with other margins."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("rollout", help="its id")
        parser.add_argument("--margin", type=_margin, action="append", default=[], help="failure:1 (points)")
        parser.add_argument("--off", action="append", default=[], help="a guardrail to leave out")

    def handle(self, **options: Any) -> None:
        try:
            rollout = Rollout.objects.select_related("workload").get(pk=options["rollout"])
        except (Rollout.DoesNotExist, ValidationError, ValueError):
            raise CommandError(f"There is no rollout {options['rollout']}.") from None
        off = [{"metric": metric, "enabled": False} for metric in options["off"]]
        try:
            result = dry_run(rollout, [*options["margin"], *off])
        except PointsmanError as error:
            raise CommandError(error.detail) from None
        state = rollout.state.replace("_", " ")
        self.stdout.write(one_line(f"{rollout.workload.name}, {rollout}: it is {state}."))
        self.stdout.write(one_line(result["sentence"]))


def _margin(text: str) -> dict[str, Any]:
    metric, _, amount = text.partition(":")
    try:
        return {"metric": metric, "margin": float(amount) / 100}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write failure:1 (points or per cent)") from None
