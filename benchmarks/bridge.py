"""Console pages: Django behind the gateway's WSGI bridge, with its own ASGI handler, and on granian's WSGI.

    python benchmarks/bridge.py [requests a round]    default: 100

Measures the server's processor time per request, for the same page of the same instance on one core. The three
servers run at the same time and are measured in turn; figures are medians of the rounds. There are only four
connections, because a console has few users.
"""

import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load, table
from tests.support.services import free_port

ROUNDS = 7
CONNECTIONS = 4
WORKLOADS = 100
PAGES = ("/static/console/mark.svg", "/console/", "/console/workloads/w1/")
GRANIAN = [sys.executable, "-m", "granian", "--http", "1", "--no-ws", "--log-level", "error"]
SERVERS = {
    "gateway's bridge": instance.SERVE,
    "ASGI handler": [*GRANIAN, "--interface", "asginl", "--loop", "uvloop", "benchmarks.dataplane.console:asgi"],
    "granian's WSGI": [
        *GRANIAN, "--interface", "wsgi", "--blocking-threads", "8", "benchmarks.dataplane.console:wsgi",
    ],
}  # fmt: skip


def main(count: int) -> None:
    instance.prepare()
    instance.fill(WORKLOADS)
    cookie = f"sessionid={_session()}"
    with ExitStack() as stack:
        servers = []
        for command in SERVERS.values():
            port = free_port()
            started = load.served([*command, "--port", str(port)], f"http://127.0.0.1:{port}/console/login/")
            servers.append((stack.enter_context(started), port))
        rows = [[f"`{page}`", *_measured(servers, page, cookie, count)] for page in PAGES]
    columns = ["CPU ms per request", *SERVERS, "bridge ÷ ASGI", "bridge ÷ WSGI"]
    table.show("Django's pages, by the server in front of Django", columns, rows)


def _measured(servers: list[tuple[load.Server, int]], page: str, cookie: str, count: int) -> list[float]:
    asked = load.request("GET", page, Cookie=cookie)
    rounds = []
    for number in range(ROUNDS + 1):
        found = [load.measure(server, port, asked, count, CONNECTIONS) for server, port in servers]
        for measured in found:
            assert set(measured.statuses) == {200}, (page, measured.statuses)
        if number:  # the first request loads the templates
            rounds.append([measured.cpu_us / 1e3 for measured in found])
    middle = [statistics.median(side) for side in zip(*rounds, strict=True)]
    return [*middle, *(statistics.median(r[0] / r[other] for r in rounds) for other in (1, 2))]


def _session() -> str:
    """Create the session of a signed-in administrator."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("bench"))
    return client.cookies["sessionid"].value


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
