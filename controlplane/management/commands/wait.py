"""`pointsman-server wait`: return once the server is ready. For scripts that start it in the background."""

import http.client
import time
from argparse import ArgumentParser
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

EVERY_S = 0.2
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 — where a server that listens on all of them answers


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
        while (wrong := _not_ready(address)) and time.monotonic() < end:
            time.sleep(EVERY_S)
        if wrong:
            raise CommandError(
                f"{address} is not ready after {seconds:g} seconds: {wrong}. Read the server's output."
            )
        self.stdout.write(f"Pointsman is ready at {address}/")


def _not_ready(address: str) -> str:
    """Return why the server is not ready, or "" if it is."""
    try:
        with urlopen(f"{address}/readyz", timeout=5):  # noqa: S310 — the address is the operator's own
            return ""
    except URLError as error:
        return str(error.reason if not hasattr(error, "code") else f"it answers {error.code}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
