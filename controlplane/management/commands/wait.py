"""`pointsman-server wait`: return once the server is ready. For scripts that start it in the background."""

import time
from argparse import ArgumentParser
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

EVERY_S = 0.2
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 — where it answers  # nosec B104


class Command(BaseCommand):
    help = "Wait until the server is ready (/readyz answers 200)."
    requires_system_checks: list[str] = []  # the database may not exist yet

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address of the server (HOST)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="its port (PORT)")
        parser.add_argument("--seconds", type=float, default=60.0, help="how long to wait at most")

    def handle(self, *args: Any, host: str, port: int, seconds: float, **options: Any) -> None:
        host = _EVERY_ADDRESS.get(host, host)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        end = time.monotonic() + seconds
        while (wrong := _not_ready(host, port)) and time.monotonic() < end:
            time.sleep(EVERY_S)
        if wrong:
            raise CommandError(
                f"{address} is not ready after {seconds:g} seconds: {wrong}. Read the server's output."
            )
        self.stdout.write(f"Pointsman is ready at {address}/")


def _not_ready(host: str, port: int) -> str:
    """Return why the server is not ready, or "" if it is. Ask it directly, not through a proxy."""
    connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if status == HTTPStatus.OK else f"it answers {status}"
