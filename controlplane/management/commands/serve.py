"""`manage.py serve`: the web server, with the gateway and the console in it."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from controlplane.server.workers import Workers, listeners


class Command(BaseCommand):
    help = "Serve routers, the API and the console."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (PORT)")
        parser.add_argument("--workers", type=int, default=settings.WORKERS, help="processes (WORKERS)")
        parser.add_argument(
            "--grace", type=float, default=1.0, help="seconds between readiness going down and the end"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port, number = options["host"], options["port"], options["workers"]
        if number > 1 and settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
            raise CommandError(
                "SQLite has one writer: serve with one worker, or set DATABASE_URL to a PostgreSQL."
            )
        try:
            sockets = listeners(host, port, number)
        except OSError as error:
            raise CommandError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
        self.stdout.write(f"Pointsman is served at http://{host}:{port}/")
        self.stdout.flush()
        connections.close_all()  # none is to be shared with the workers
        Workers(sockets, options["grace"]).run()
