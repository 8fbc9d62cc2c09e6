"""manage.py keys create | revoke | list | public"""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.access import actions
from controlplane.access.models import SCOPES, Key
from controlplane.core import clock, signing
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.core.errors import PointsmanError
from pointsman.visible import one_line

MOST_DAYS = 36_500  # a hundred years


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST_DAYS):
        raise ArgumentTypeError(f"give a whole number from 1 to {MOST_DAYS:,}, not {text[:40]!r}")
    return int(text)


class Command(BaseCommand):
    help = "Create, revoke and list API keys; print the public keys with which routers verify snapshots."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_subparsers(dest="what", required=True)
        create = what.add_parser("create", help="create a key; it is printed only once")
        create.add_argument("kind", choices=Key.Kind.values)
        create.add_argument("label", help="what it is for")
        create.add_argument("--environment", default="", help="a router key needs one")
        create.add_argument(
            "--scope",
            action="append",
            default=[],
            choices=[scope for scope, _ in SCOPES],
            help="admin keys only",
        )
        create.add_argument("--workload", action="append", default=[], help="limit it to these workloads")
        create.add_argument("--user", default="", help="the person that an admin key acts for")
        create.add_argument("--days", type=_days, help="days until it expires (default: never)")
        create.add_argument("--reason", default="Created by a command on the server.")
        revoke = what.add_parser("revoke", help="revoke a key")
        revoke.add_argument("key_id")
        revoke.add_argument("--reason", required=True)
        what.add_parser("list", help="list every key, without its secret")
        what.add_parser(
            "public", help="print the instance's public keys, one per line, for Router(public_keys=…)"
        )

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        try:
            with request_context(source="command keys"):
                getattr(self, what)(**options)
        except PointsmanError as error:
            raise CommandError(error.as_text()) from None

    def create(self, *, kind: str, label: str, environment: str, days: int | None, **options: Any) -> None:
        person = actions.people([options["user"]])[0] if options["user"] else None
        _, text = actions.issue_key(
            kind,
            environment,
            label,
            actor=SYSTEM,
            user=person,
            scopes=options["scope"],
            workloads=options["workload"],
            expires_at=None if days is None else clock.now() + timedelta(days=days),
            reason=options["reason"],
            known_only=True,
        )
        self.stdout.write(text)

    def revoke(self, *, key_id: str, reason: str, **options: Any) -> None:
        key = actions.revoke_key(key_id, actor=SYSTEM, reason=reason)
        self.stdout.write(f"{key.key_id} was revoked at {key.revoked_at:%Y-%m-%d %H:%M:%S} UTC.")

    def list(self, **options: Any) -> None:
        for key in Key.objects.order_by("pk"):
            if key.revoked_at:
                state = f"revoked {key.revoked_at:%Y-%m-%d}"
            else:
                state = f"expires {key.expires_at:%Y-%m-%d}" if key.expires_at else "live"
            rights = ",".join(key.scopes) or "-"
            where = key.environment or "*"
            row = f"{key.key_id}  {key.kind:6}  {where:16}  {rights:24}  {state:18}  {key.label}"
            self.stdout.write(one_line(row))

    def public(self, **options: Any) -> None:
        self.stdout.write(signing.public_key_text())
