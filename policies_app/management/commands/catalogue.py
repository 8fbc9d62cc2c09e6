"""manage.py catalogue import: import prices from a price map or a CSV. Without --apply, only show the changes."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.core.errors import PointsmanError
from pointsman.plurals import counted
from pointsman.visible import one_line
from policies_app.catalogue import imports, price_files
from policies_app.catalogue.imports import Change


class Command(BaseCommand):
    help = "Import model prices into the catalogue from LiteLLM's price map (JSON) or a CSV."

    def add_arguments(self, parser: CommandParser) -> None:
        importing = parser.add_subparsers(dest="what", required=True).add_parser("import")
        importing.add_argument(
            "file",
            type=Path,
            nargs="?",
            help="LiteLLM's model_prices_and_context_window.json, or a CSV; "
            "default: the price map of the installed litellm package",
        )
        importing.add_argument(
            "--add", action="append", default=[], metavar="PATTERN", help="also add models with these names"
        )
        importing.add_argument(
            "--overwrite", action="store_true", help="also overwrite prices set by a person"
        )
        importing.add_argument(
            "--apply", action="store_true", help="write the changes; otherwise only show them"
        )
        importing.add_argument("--reason", default="", help="kept in the audit log; required with --apply")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["apply"] and not options["reason"].strip():
            raise CommandError("--apply needs a --reason.")
        try:
            listed = price_files.read(options["file"] or _installed())
        except ValueError as error:
            raise CommandError(str(error)) from None
        if listed.problems:
            raise CommandError("\n".join([*map(one_line, listed.told()), "Nothing was imported."]))
        changes = imports.plan(listed, add=options["add"], overwrite=options["overwrite"])
        for change in changes:
            self.stdout.write(one_line(_line(change)))
        if options["apply"]:
            self._apply(listed, changes, options["reason"])
        else:
            written = sum(not change.kept for change in changes)
            self.stdout.write(f"{written} of {len(changes)} would be written. Use --apply to write them.")

    def _apply(self, listed: price_files.PriceList, changes: list[Change], reason: str) -> None:
        try:
            with request_context(source="command catalogue"):
                number = imports.apply(listed.source, changes, actor=SYSTEM, reason=reason)
        except PointsmanError as error:
            nothing = "" if error.extra.get("written") else " Nothing was written."
            raise CommandError(f"{error.detail}{nothing}") from None
        self.stdout.write(f"{counted(number, 'model')} written.")


def _line(change: Change) -> str:
    used = f" [served in {', '.join(change.used_in)}]" if change.used_in else ""
    kept = f" — kept: {change.kept}" if change.kept else ""
    return f"{'~' if change.model else '+'} {change.name}: {'; '.join(change.lines)}{used}{kept}"


def _installed() -> Path:
    found = price_files.installed_price_map()
    if found is None:
        raise CommandError("The litellm package is not installed: give a file.")
    return found
