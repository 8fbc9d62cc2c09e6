"""manage.py audit verify | export | checkpoint"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from controlplane.audit import checkpoints, triggers


class Command(BaseCommand):
    help = "Verify, export or sign the audit log."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_subparsers(dest="what", required=True)
        verify = what.add_parser(
            "verify", help="find what was altered, missing, reordered, forked, truncated"
        )
        verify.add_argument(
            "--key",
            action="append",
            default=[],
            help="an earlier public key, <id>:<base64>, to trust as well",
        )
        what.add_parser("export", help="the whole log as JSON lines, for docs/verify_audit.py")
        what.add_parser("checkpoint", help="sign where the log stands now")

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        getattr(self, what)(**options)

    def verify(self, *, key: list[str], **options: Any) -> None:
        try:
            keys = [checkpoints.public_key(text) for text in key]
        except ValueError:
            raise CommandError("--key takes <id>:<base64>, as `manage.py keys public` prints it.") from None
        for name in triggers.missing(connection):
            self.stderr.write(f"The database has no trigger {name}; the log can be rewritten there.")
        examination = checkpoints.verify(keys)
        for finding in examination.findings:
            self.stdout.write(str(finding))
        if examination.findings:
            raise CommandError("The audit log is not what was written.", returncode=1)
        self.stdout.write(f"{examination.count} entries, verified to {examination.hash or 'the beginning'}.")

    def export(self, **options: Any) -> None:
        for line in checkpoints.export():
            self.stdout.write(line)

    def checkpoint(self, **options: Any) -> None:
        made = checkpoints.make()
        self.stdout.write(made.note if made else "Nothing was appended since the last checkpoint.\n")
