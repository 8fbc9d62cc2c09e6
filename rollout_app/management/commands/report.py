"""manage.py report: the evidence report of a rollout, as Markdown or JSON."""

from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rest_framework.renderers import JSONRenderer

from pointsman.visible import visible, visible_json
from rollout_app.evidence_report.gather import evidence_report
from rollout_app.evidence_report.markdown import as_markdown
from rollout_app.models import Rollout


class Command(BaseCommand):
    help = "Write the evidence report of a rollout: what, who, why, the evidence, and the result."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("rollout", help="its id")
        parser.add_argument("--json", action="store_true", help="as JSON, with the sums behind every verdict")
        parser.add_argument(
            "--to", type=Path, metavar="FILE", help="write to this file instead of the terminal"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        found = evidence_report(_rollout(options["rollout"]))
        text = JSONRenderer().render(found).decode() if options["json"] else as_markdown(found)
        if options["to"] is None:
            self.stdout.write(visible_json(text) if options["json"] else visible(text))
            return
        try:
            options["to"].write_text(text, "utf-8")
        except OSError as error:
            raise CommandError(f"{options['to']} cannot be written: {error.strerror}.") from None


def _rollout(text: str) -> Rollout:
    try:
        pk = UUID(text)
    except ValueError:
        raise CommandError(f"{text!r} is not a rollout's id.") from None
    rows = Rollout.objects.select_related("environment", "workload__owner", "baseline", "candidate")
    found = rows.filter(pk=pk).first()
    if found is None:
        raise CommandError(f"There is no rollout {pk}.")
    return found
