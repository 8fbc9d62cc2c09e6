"""Outcomes: batches of 10 buckets, each answered only after its commit has reached the disk.

    python benchmarks/ingest.py [routes …]            default: 10 1000 10000

Routes are the different keys (workload, endpoint, rule, model) that the fleet reports on in each minute. The server
has one core; the load and PostgreSQL have the other. "decoding" is the limit, measured in the same run: the same
server, which reads and decodes the same batches and stores nothing. The server's time includes its work after the
last response until everything is in the totals; then the totals must equal exactly what was accepted.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load, table
from benchmarks.dataplane.family import Family
from benchmarks.dataplane.reports import TASKS, Fleet

BUCKETS = 10
SECONDS = 4
WARM = 1_000  # batches before the measured ones
MOST = 15_000  # batches of one measurement, which are created beforehand and held in memory
ROUTERS = (64, 640)
COLUMNS = (
    "database, routes, routers", "batches/s", "server µs", "× decoding", "PostgreSQL µs", "load µs",
    "p50 ms", "p99 ms", "429",
)  # fmt: skip


def one(database: str, routes: int, workers: int) -> None:
    """Fill and measure one database. Prints a row for each number of routers."""
    from tests.support.services import free_port

    instance.prepare(instance.durable_postgres() if database == "PostgreSQL" else "")
    key, port = instance.fill(100), free_port()
    fleet, auth = Fleet(routes, BUCKETS), {"Authorization": f"Bearer {key}"}
    postgres = _postgres() if database == "PostgreSQL" else None

    def requests(count: int, routers: int) -> list[bytes]:
        bodies = fleet.bodies(count, routers)
        return [load.request("POST", "/router/v1/outcomes", body, **auth) for body in bodies]

    with load.bare("benchmarks.dataplane.decoding:application") as (server, its_port):
        sent = requests(2_000, 64)
        limit = [load.measure(server, its_port, sent, len(sent)).cpu_us for _ in range(3)][-1]
    command = [*instance.SERVE, "--port", str(port), "--workers", str(workers)]
    accepted = 0
    with load.served(command, f"http://127.0.0.1:{port}/router/v1/snapshot") as server:
        if postgres:
            postgres.pin(load.LOAD_CORE)
        for routers in ROUTERS:
            warm = load.measure(server, port, requests(WARM, routers), WARM, routers)
            _settled()
            count = min(MOST, round(warm.per_second * SECONDS))
            row = _measured(server, port, requests(count, routers), routers, postgres)
            accepted += warm.statuses[202] + row.pop("accepted")
            row["name"] = f"{database}{f' ×{workers}' if workers > 1 else ''}, {routes:,}, {routers}"
            print(json.dumps(row | {"limit_us": limit}), flush=True)
        _check(accepted)


def _measured(
    server: load.Server, port: int, sent: list[bytes], routers: int, postgres: Family | None
) -> dict[str, Any]:
    clocks: list[Callable[[], float]] = [server.cpu_s, postgres.cpu_s if postgres else lambda: 0.0]
    before = [clock() for clock in clocks]
    own = time.process_time()
    measured = load.measure(server, port, sent, len(sent), connections=routers)
    own = time.process_time() - own
    _settled()
    server_s, postgres_s = (clock() - begun for clock, begun in zip(clocks, before, strict=True))
    assert set(measured.statuses) <= {202, 429}, measured.statuses
    accepted = measured.statuses[202]
    return {
        "accepted": accepted, "refused": measured.statuses.get(429, 0),
        "per_second": measured.per_second * accepted / len(sent),
        "server_us": server_s / accepted * 1e6, "postgres_us": postgres_s / accepted * 1e6,
        "load_us": own / len(sent) * 1e6, "p50_ms": measured.p50_ms, "p99_ms": measured.p99_ms,
    }  # fmt: skip


def _settled() -> None:
    """Wait until everything accepted has been counted."""
    from rollout_app.models import DeferredGroup

    while DeferredGroup.objects.exists():
        time.sleep(0.1)


def _postgres() -> Family:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_read_file('postmaster.pid')")
        return Family(int(cursor.fetchone()[0].split()[0]))


def _check(accepted: int) -> None:
    """Check that every batch with a 202 is in the totals exactly once."""
    from django.db.models import Sum

    from rollout_app.models import ArmTotals, OutcomeBucket

    for model in (ArmTotals, OutcomeBucket):
        counted = model._default_manager.aggregate(tasks=Sum("tasks"))["tasks"]
        assert counted == accepted * BUCKETS * TASKS, (model, counted, accepted)


def _rows(database: str, routes: str, workers: str) -> list[list[object]]:
    child = subprocess.run(
        [sys.executable, __file__, "--one", database, routes, workers], check=True, stdout=subprocess.PIPE
    )
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    return [
        [
            row["name"], row["per_second"], row["server_us"], row["server_us"] / row["limit_us"],
            row["postgres_us"] if database == "PostgreSQL" else "", row["load_us"],
            row["p50_ms"], row["p99_ms"], row["refused"],
        ]
        for row in rows
    ]  # fmt: skip


def main(routes: list[str]) -> None:
    runs = [(database, count, "1") for database in ("SQLite", "PostgreSQL") for count in routes]
    runs.append(("PostgreSQL", "1000", "2"))
    rows = [row for run in runs for row in _rows(*run)]
    table.show(f"Outcomes in batches of {BUCKETS} buckets", COLUMNS, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(sys.argv[1:] or ["10", "1000", "10000"])
