"""Long polls: memory of each that is held, and the time from a promotion's commit to every router's answer.

python benchmarks/longpolls.py [number …]         default: 500 5000
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import uvloop

from benchmarks.dataplane import instance, load


class Poll(asyncio.Protocol):
    """One router that waits."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            assert data.startswith(b"HTTP/1.1 200"), data[:100]
            self.answered.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or ConnectionError("the server hung up"))


def one(number: int) -> None:
    import httpx

    from tests.services import free_port

    instance.prepare()
    key, port = instance.fill(100), free_port()
    command = [sys.executable, str(instance.ROOT / "manage.py"), "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/router/v1/snapshot"
    with load.served(command, url) as server:
        tag = httpx.get(url, headers={"Authorization": f"Bearer {key}"}).headers["etag"]
        before = server.rss()
        took, after, committed_ms = uvloop.run(hold(number, port, key, tag, server))
        took.sort()
        print(
            f"{number:6} held: {(after - before) / number / 1000:6.1f} kB each; promotion to answer "
            f"p50 {took[number // 2] * 1e3:4.0f} ms, p99 {took[int(number * 0.99)] * 1e3:4.0f} ms, "
            f"last {took[-1] * 1e3:4.0f} ms (from the commit, which took {committed_ms:.0f} ms)"
        )


async def hold(
    number: int, port: int, key: str, tag: str, server: load.Server
) -> tuple[list[float], int, float]:
    from controlplane.actors import SYSTEM
    from policies_app import actions
    from policies_app.models import Assignment

    loop = asyncio.get_running_loop()
    polls = []
    for router in range(number):
        request = load.request(
            "GET", "/router/v1/snapshot?since=100", Authorization=f"Bearer {key}", If_None_Match=tag,
            Prefer="wait=30", Pointsman_Router=f"r-{router}", Pointsman_Client="bench/1",
        )  # fmt: skip
        _, poll = await loop.create_connection(lambda request=request: Poll(request), "127.0.0.1", port)  # type: ignore[misc]
        polls.append(poll)
    await asyncio.sleep(3)
    after = server.rss()

    def promote() -> tuple[float, float]:
        assignment = Assignment.objects.select_related("workload", "environment", "baseline").first()
        assert assignment is not None
        began = time.perf_counter()
        actions.pin(assignment, "large", actor=SYSTEM, reason="bench")
        return began, time.perf_counter()

    began, committed = await asyncio.to_thread(promote)
    answered = await asyncio.gather(*(poll.answered for poll in polls))
    return [at - committed for at in answered], after, (committed - began) * 1e3


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        for number in sys.argv[1:] or ["500", "5000"]:
            subprocess.run([sys.executable, __file__, "--one", number], check=True)
