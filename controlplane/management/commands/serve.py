"""`manage.py serve`: run the web server with the gateway and the console."""

import logging
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from controlplane.audit.management import key_changes
from controlplane.core import tables
from controlplane.core.context import request_context
from controlplane.server import process

logger = logging.getLogger(__name__)
MOST_GRACE_S = 3_600
MOST_WORKERS = 1_000  # as in the settings


class Command(BaseCommand):
    help = "Serve routers, the API and the console."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (PORT)")
        parser.add_argument("--workers", type=int, default=settings.WORKERS, help="processes (WORKERS)")
        parser.add_argument(
            "--grace", type=float, default=1.0, help="seconds between reporting not ready and stopping"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port, workers = options["host"], options["port"], options["workers"]
        if not 0 <= port <= 65_535:
            raise CommandError(f"A port is a number from 0 to 65535, not {port}.")
        if not 1 <= workers <= MOST_WORKERS:
            raise CommandError(f"Serve with 1 to {MOST_WORKERS:,} workers, not {workers:,}.")
        if not 0 <= options["grace"] <= MOST_GRACE_S:
            raise CommandError(f"--grace is from 0 to {MOST_GRACE_S} seconds, not {options['grace']:g}.")
        if workers > 1 and settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
            raise CommandError(
                "SQLite allows one writer: serve with one worker, or set DATABASE_URL to a PostgreSQL database."
            )
        tables.refuse_unfit()
        _notice_other_keys()
        connections.close_all()  # workers must not share connections
        try:
            address = process.resolved(host, port)
            process.refuse_taken(address, port)
        except OSError as error:
            raise CommandError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
        self.stdout.write(f"Pointsman is running at http://{host}:{port}/")
        self.stdout.flush()
        process.serve(address, port, workers, options["grace"])


def _notice_other_keys() -> None:
    """Record in the audit log that the signing keys changed, if they did. If the database is away, this happens
    later."""
    with suppress(DatabaseError), request_context(source="command serve"):
        if key_changes.notice():
            logger.warning("the signing keys changed; see the audit log")
