"""Publishing one change among many workloads: when is it served, how large is it, and what does it delay?

    python benchmarks/publish.py [workloads …]        default: 100 1000 10000

Measures from the commit of a change, made by another process, to the complete delta at a waiting router. With Redis
the gateway is notified at once; without, it polls every 200 ms, and half of that is in the figure. Meanwhile four
routers poll without waiting, and after each change another one requests everything, so that the full body is built
and sent at the same time. Their slowest responses around a change and between changes show what publishing costs the
others. The server has one core; the load, the committing process and the databases have the other.
"""

import asyncio
import random
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import uvloop

from benchmarks.dataplane import instance, load, table
from tests.support import services

CHANGES = 15
BETWEEN_S = 0.8
POLLERS, POLL_EVERY_S = 4, 0.002
SNAPSHOT = "/router/v1/snapshot"


class Change(NamedTuple):
    """Times are in seconds; moments are values of `time.perf_counter()`."""

    began: float
    committed: float
    served: float  # arrival of the delta
    delta: int  # bytes
    full_s: float  # for the first complete response
    full: int  # bytes
    over: float


class Router:
    """A connection that is reused."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key

    async def ask(self, query: str = "", **headers: str) -> tuple[str, int]:
        """Return the tag of the response and the bytes of its body."""
        if not hasattr(self, "_writer"):
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
        self._writer.write(
            load.request("GET", SNAPSHOT + query, Authorization=f"Bearer {self._key}", **headers)
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        given = dict(line.split(": ", 1) for line in head[1:] if line)
        left = size = 0 if " 304 " in head[0] else int(given["content-length"])
        while left:
            left -= len(await self._reader.read(min(left, 2**20)))
        return given["etag"], size


async def poll(router: Router, query: str, tag: str, seen: list[tuple[float, float]]) -> None:
    """Poll forever. `seen` collects the time of each request and its duration."""
    while True:
        began = time.perf_counter()
        await router.ask(query, If_None_Match=tag)
        seen.append((began, time.perf_counter() - began))
        await asyncio.sleep(POLL_EVERY_S)


async def change(made: instance.Filled, waiting: Router, whole: Router, revision: int, tag: str) -> Change:
    delta = asyncio.create_task(
        waiting.ask(f"?since={revision}", If_None_Match=tag, Prefer="wait=30"),
    )
    # Not in step with the gateway's polls.
    await asyncio.sleep(BETWEEN_S + random.random() * 0.2)
    began, committed = await asyncio.to_thread(made.change)
    _, size = await delta
    served = time.perf_counter()
    _, full = await whole.ask()
    over = time.perf_counter()
    return Change(began, committed, served, size, over - served, full, over)


async def run(
    made: instance.Filled, port: int, workloads: int
) -> tuple[list[Change], list[tuple[float, float]]]:
    waiting, whole = Router(port, made.key), Router(port, made.key)
    tag, _ = await whole.ask()
    seen: list[tuple[float, float]] = []
    query = f"?since={workloads}"
    pollers = [asyncio.create_task(poll(Router(port, made.key), query, tag, seen)) for _ in range(POLLERS)]
    changes = []
    for number in range(CHANGES):
        changes.append(await change(made, waiting, whole, workloads + number, tag))
        tag, _ = await waiting.ask(f"?since={workloads + number + 1}")
    for poller in pollers:
        poller.cancel()
    return changes, seen


def measured(workloads: int, database_url: str, redis_url: str) -> list[object]:
    port = services.free_port()
    with instance.filled(workloads, database_url, redis_url) as made:
        url = f"http://127.0.0.1:{port}{SNAPSHOT}"
        with load.served([*instance.SERVE, "--port", str(port)], url, **made.environment):
            load.stay_off_the_servers_core()
            changes, seen = uvloop.run(run(made, port, workloads))
    around = [took for at, took in seen if any(c.began <= at + took and at <= c.over for c in changes)]
    between = [took for at, took in seen if not any(c.began <= at + took and at <= c.over for c in changes)]
    served = sorted((c.served - c.committed) * 1e3 for c in changes)
    return [
        statistics.median((c.committed - c.began) * 1e3 for c in changes),
        statistics.median(served), served[-1], max(c.delta for c in changes),
        statistics.median(c.full_s for c in changes) * 1e3, changes[-1].full,
        _p99(between), max(between) * 1e3, _p99(around), max(around) * 1e3,
    ]  # fmt: skip


def _p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98] * 1e3


def main(sizes: list[int]) -> None:
    redis, rows = f"{services.redis_url()}/0", []
    for name, told in (("SQLite", ""), ("SQLite", redis), ("PostgreSQL", redis)):
        for workloads in sizes:
            database = instance.new_database() if name == "PostgreSQL" else ""
            notice = "notified by Redis" if told else "polled every 200 ms"
            rows.append([f"{name}, {notice}, {workloads:,}", *measured(workloads, database, told)])
    columns = [
        "database, notice, workloads", "commit ms", "delta after, ms", "worst", "delta bytes",
        "full 200, ms", "bytes", "others p99, ms", "worst", "around a change p99", "worst",
    ]  # fmt: skip
    title = "One change: the time from its commit to a waiting router, and its effect on other requests"
    table.show(title, columns, rows)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [100, 1_000, 10_000])
