"""The space of outcomes in PostgreSQL: bytes of each row with its indexes, and the server's connections.

    python benchmarks/rows.py [minutes] [routers]           default: 120 20
Every router reports every minute of the same 10 routes, so a row is inserted once and then updated by each of the
others. This leaves as many dead row versions as the table has between two vacuums.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load

ROUTES = 10
TABLES = ("rollout_app_outcomebucket", "rollout_app_armtotals", "rollout_app_acceptedbatch")


def main(minutes: int, routers: int) -> None:
    from tests.support.services import free_port

    url = instance.durable_postgres()
    instance.prepare(url)
    key, port = instance.fill(ROUTES), free_port()
    command = [sys.executable, str(instance.ROOT / "manage.py"), "serve", "--port", str(port)]
    auth = {"Authorization": f"Bearer {key}"}
    with load.served(command, f"http://127.0.0.1:{port}/router/v1/snapshot") as server:
        _report("after one report of each minute", server, port, auth, minutes, range(1))
        _report(f"after {routers} reports of each minute", server, port, auth, minutes, range(1, routers))
        print(f"connections of one process without its runner: {_connections()}")
    with load.served(command, f"http://127.0.0.1:{port}/healthz", EMBEDDED_RUNNER="true"):
        time.sleep(5)
        print(f"connections of one process with it: {_connections()}")
    _vacuum()
    _sizes("after a vacuum", minutes)


def _report(
    when: str, server: load.Server, port: int, auth: dict[str, str], minutes: int, routers: range
) -> None:
    now = time.time() // 60 * 60
    stamps = [time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(now - 60 * n)) for n in range(minutes)]
    sent = [
        load.request("POST", "/router/v1/outcomes", instance.report(ROUTES, router, stamp), **auth)
        for stamp in stamps
        for router in routers
    ]
    measured = load.measure(server, port, sent, len(sent), connections=16)
    assert set(measured.statuses) == {202}, measured.statuses
    _sizes(when, minutes)


def _sizes(when: str, minutes: int) -> None:
    from django.db import connection

    for table in TABLES:
        with connection.cursor() as cursor:
            # Only the names above are inserted.
            sizes = f"SELECT count(*), pg_table_size('{table}'), pg_indexes_size('{table}') FROM {table}"  # noqa: S608
            cursor.execute(sizes)
            rows, heap, indexes = cursor.fetchone()
        print(
            f"{when}: {table} {rows} rows, {heap / rows:.0f} B of table and {indexes / rows:.0f} B of indexes each"
        )


def _vacuum() -> None:
    """A vacuum makes space reusable but does not return it; a full one shows the size of the rows themselves."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL")


def _connections() -> int:
    """Count the connections of other processes to this database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        found: int = cursor.fetchone()[0]
    return found


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3] or ("120", "20")))
