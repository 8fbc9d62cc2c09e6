"""Long polls: the memory of each waiting poll, and the time from a promotion's commit to every router's response.

    python benchmarks/longpolls.py [number …]         default: 500 5000

The limit, measured in the same run: an application that does nothing else on the same server, with as many requests
that wait until the client disconnects. Memory is the growth of the server's resident set divided by the number; each
router has its own name.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import uvloop

from benchmarks.dataplane import instance, load, table

WORKLOADS = 100
SETTLES_S = 3.0  # until the first routers have been recorded once


class Poll(asyncio.Protocol):
    """One waiting router."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            assert data.startswith(b"HTTP/1.1 200"), data[:100]
            self.answered.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or ConnectionError("the server hung up"))

    def hang_up(self) -> None:
        self.answered.cancel()
        self._transport.abort()


async def hold(number: int, port: int, path: str, key: str, tag: str) -> list[Poll]:
    """Start this many routers, each on its own connection, all waiting."""
    loop, polls = asyncio.get_running_loop(), []
    for router in range(number):
        request = load.request(
            "GET", path, Authorization=f"Bearer {key}", If_None_Match=tag, Prefer="wait=30",
            Pointsman_Router=f"r-{router}", Pointsman_Client="bench/1",
        )  # fmt: skip
        _, poll = await loop.create_connection(lambda request=request: Poll(request), "127.0.0.1", port)  # type: ignore[misc]
        polls.append(poll)
    await asyncio.sleep(SETTLES_S)
    return polls


async def bare(number: int, server: load.Server, port: int) -> float:
    """Bytes of resident memory for each waiting request of the bare app."""
    before = server.rss()
    polls = await hold(number, port, "/hold", "x" * 80, '"limit"')
    each = (server.rss() - before) / number
    for poll in polls:
        poll.hang_up()
    return each


async def gateway(
    number: int, server: load.Server, port: int, key: str, tag: str
) -> tuple[float, list[float]]:
    """Bytes for each long poll, and the sorted seconds from the commit of a pin to each response."""
    before = server.rss()
    polls = await hold(number, port, f"/router/v1/snapshot?since={WORKLOADS}", key, tag)
    each = (server.rss() - before) / number
    committed = await asyncio.to_thread(_promote)
    answered = await asyncio.gather(*(poll.answered for poll in polls))
    return each, sorted(at - committed for at in answered)


def _promote() -> float:
    from controlplane.core.actors import SYSTEM
    from policies_app import actions
    from policies_app.models import Assignment

    assignment = Assignment.objects.select_related("workload", "environment", "baseline").first()
    assert assignment is not None
    actions.pin(assignment, "large", actor=SYSTEM, reason="bench")
    return time.perf_counter()


def one(number: int) -> None:
    from tests.support.services import free_port

    instance.prepare()
    key, port = instance.fill(WORKLOADS), free_port()
    with load.bare() as (server, bare_port):
        limit = uvloop.run(bare(number, server, bare_port))
    url = f"http://127.0.0.1:{port}/router/v1/snapshot"
    with load.served([*instance.SERVE, "--port", str(port)], url) as server:
        tag, _ = load.tag(url, {"Authorization": f"Bearer {key}"})
        each, took = uvloop.run(gateway(number, server, port, key, tag))
    at = [took[min(int(share * number), number - 1)] * 1e3 for share in (0.5, 0.99, 1)]
    print(json.dumps([number, limit / 1e3, each / 1e3, each / limit, *at]))


def main(numbers: list[str]) -> None:
    rows = []
    for number in numbers:
        command = [sys.executable, __file__, "--one", number]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    columns = ["held", "bare app, kB each", "gateway, kB each", "× bare", "p50 ms", "p99 ms", "last ms"]
    table.show(
        "Long polls: memory, and the time from a pin's commit in another process to the answers",
        columns,
        rows,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        main(sys.argv[1:] or ["500", "5000"])
