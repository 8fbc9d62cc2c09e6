"""manage.py rollups: bring the review's sums up to date, rebuild them, or compare them with the outcomes."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_date

from controlplane.core import clock
from pointsman.plurals import counted
from pointsman.visible import one_line
from rollout_app.review import recount, rollups


class Command(BaseCommand):
    help = "Bring the review's hourly and daily sums up to date."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--rebuild", action="store_true", help="sum everything again from the stored outcomes"
        )
        parser.add_argument(
            "--check", action="store_true", help="compare the sums with the outcomes; changes nothing"
        )
        parser.add_argument(
            "--since", metavar="DATE", help="with --rebuild: only from this day on, such as 2026-11-01 (UTC)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["since"] is not None and not options["rebuild"]:
            raise CommandError("--since only limits --rebuild; give both.")
        if options["check"]:
            return self._check()
        if options["rebuild"]:
            done = recount.rebuild(_day(options["since"]))
        else:
            done = rollups.roll_up()
            rollups.run_on()
        self.stdout.write(f"Rolled up {counted(done, 'workload hour')}.")

    def _check(self) -> None:
        wrong = recount.differences()
        for line in wrong[:20]:
            self.stderr.write(one_line(line))
        if wrong:
            raise CommandError(
                f"{len(wrong):,} sums differ from the outcomes. `manage.py rollups --rebuild` corrects them."
            )
        self.stdout.write("The sums match the outcomes.")


def _day(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None:
        raise CommandError(f"{text!r} is not a date; give one such as 2026-11-01.")
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if since > clock.now():
        raise CommandError(f"{text} is in the future; there is nothing to rebuild.")
    return since
