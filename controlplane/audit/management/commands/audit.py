"""manage.py audit verify | export | checkpoint"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from controlplane.audit import checkpoints, exports, notes, triggers, verification
from controlplane.audit.models import Entry
from pointsman.plurals import counted
from pointsman.visible import one_line


class Command(BaseCommand):
    help = "Verify, export or sign the audit log."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_subparsers(dest="what", required=True)
        verify = what.add_parser(
            "verify", help="check the log for tampering; exit code 1 if anything is found"
        )
        verify.add_argument(
            "--key",
            action="append",
            default=[],
            help="an earlier public key, <id>:<base64>, to trust as well",
        )
        verify.add_argument(
            "--checkpoints",
            action="append",
            default=[],
            metavar="FILE",
            help="a copy of the checkpoints that was kept elsewhere, to compare with as well",
        )
        verify.add_argument(
            "--without-file",
            action="store_true",
            help="skip the checkpoint file: the periodic jobs run on another machine",
        )
        export = what.add_parser(
            "export", help="print the whole log; docs/verify_audit.py verifies the JSON lines"
        )
        export.add_argument("--format", choices=exports.FORMATS, default="jsonl", dest="form")
        what.add_parser("checkpoint", help="sign the current end of the log")

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        getattr(self, what)(**options)

    def verify(self, *, key: list[str], without_file: bool, **options: Any) -> None:
        try:
            keys = [checkpoints.public_key(text) for text in key]
        except ValueError:
            raise CommandError("--key takes <id>:<base64>, as `manage.py keys public` prints it.") from None
        for name in triggers.missing(connection):
            self.stderr.write(f"The trigger {name} is missing; the database does not protect the log.")
        copies = [_read(path) for path in options["checkpoints"]]
        found = verification.verify(keys, copies=copies, with_file=not without_file)
        for finding in found.findings:
            self.stdout.write(one_line(finding))
        if found.findings:
            raise CommandError("The audit log has been altered.", returncode=1)
        if not found.count:
            raise CommandError("The audit log holds no entries: nothing was verified.", returncode=2)
        self.stdout.write(f"{counted(found.count, 'entry', 'entries')}, verified to {found.hash}.")

    def export(self, *, form: str, **options: Any) -> None:
        for line in exports.lines(Entry.objects.all(), form):
            self.stdout.write(line, ending="")

    def checkpoint(self, **options: Any) -> None:
        made = checkpoints.make()
        self.stdout.write(made.note if made else "Nothing was appended since the last checkpoint.\n")


def _read(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
    if not notes.read_all(text):  # comparing with nothing would end in "verified"
        raise CommandError(f"{path} holds no checkpoint: nothing was verified.", returncode=2)
    return text
