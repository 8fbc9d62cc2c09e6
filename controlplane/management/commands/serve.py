"""`manage.py serve`: the web server, granian, with the gateway and the console in it."""

import os
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels
from granian.server.mp import MPServer

from controlplane.asgi import DRAIN

BACKLOG = 4_096  # connections that wait to be accepted
CONNECTIONS = 20_000  # held by one worker at once: long polls, mostly


class _Server(MPServer):
    """Granian that tells its workers to drain before it ends them."""

    grace_s = 1.0

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        for worker in self.wrks:
            if worker.inner.is_alive():
                os.kill(worker.inner.pid, DRAIN)
        threading.Timer(self.grace_s, super().signal_handler_interrupt).start()


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
        host, port = options["host"], options["port"]
        if options["workers"] > 1 and settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
            raise CommandError(
                "SQLite has one writer: serve with one worker, or set DATABASE_URL to a PostgreSQL."
            )
        server = _Server(
            "controlplane.asgi:application",
            address=host,
            port=port,
            interface=Interfaces.ASGI,
            loop=Loops.uvloop,
            # Waiting for either version costs each connection 15 kB more than HTTP/1.1, held long polls included;
            # HTTP/2 is the proxy's, which speaks 1.1 to what is behind it.
            http=HTTPModes.http1,
            workers=options["workers"],
            backlog=BACKLOG,
            backpressure=CONNECTIONS,
            websockets=False,
            respawn_failed_workers=True,
            workers_kill_timeout=60,
            log_level=LogLevels.warning,
        )
        server.grace_s = options["grace"]
        self.stdout.write(f"Pointsman is served at http://{host}:{port}/")
        self.stdout.flush()
        connections.close_all()  # none is to be shared with the workers
        server.serve()
