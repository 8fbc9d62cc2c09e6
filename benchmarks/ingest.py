"""Outcomes: batches of 10 buckets a second, each answered only after its commit reached the disk.

    python benchmarks/ingest.py [routers …]           default: 64 640
The server has one core; the load, and PostgreSQL with it, the other.
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load

BUCKETS = 10
SECONDS = 6


def one(database: str, routers: int) -> None:
    from tests.services import free_port

    instance.prepare(instance.durable_postgres() if database == "PostgreSQL" else "")
    key, port = instance.fill(BUCKETS), free_port()
    command = [sys.executable, str(instance.ROOT / "manage.py"), "serve", "--port", str(port)]
    with load.served(command, f"http://127.0.0.1:{port}/router/v1/snapshot") as server:
        auth = {"Authorization": f"Bearer {key}"}
        count = _batches(server, port, auth, 500, routers).per_second * SECONDS
        measured = _batches(server, port, auth, int(count), routers)
        assert set(measured.statuses) <= {202, 429}, measured.statuses
        accepted = measured.statuses[202]
        share = accepted / sum(measured.statuses.values())
        print(
            f"{database:11}{routers:5} routers: {measured.per_second * share:6.0f} batches/s of {BUCKETS} buckets, "
            f"{measured.cpu_us:5.0f} µs of the server's CPU each; answered p50 {measured.p50_ms:.0f} ms, "
            f"p99 {measured.p99_ms:.0f} ms; {measured.statuses.get(429, 0)} pushed back"
        )
        _check(accepted)


def _batches(server: load.Server, port: int, auth: dict[str, str], count: int, routers: int) -> load.Measured:
    minute = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime())
    sent = [
        load.request("POST", "/router/v1/outcomes", instance.report(BUCKETS, n % routers, minute), **auth)
        for n in range(count)
    ]
    return load.measure(server, port, sent, count, connections=routers)


def _check(accepted: int) -> None:
    """Every batch that got its 202 is in the totals."""
    from django.db.models import Sum

    from rollout_app.models import ArmTotals

    counted = ArmTotals.objects.aggregate(tasks=Sum("tasks"))["tasks"]
    assert counted >= accepted * BUCKETS * 100, (counted, accepted)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]))
    else:
        for routers in sys.argv[1:] or ["64", "640"]:
            for database in ("SQLite", "PostgreSQL"):
                subprocess.run([sys.executable, __file__, "--one", database, routers], check=True)
