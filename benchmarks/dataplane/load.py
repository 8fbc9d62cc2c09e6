"""Servers on one core, load from another, and the server's processor time per request."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

ROOT = Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


class Measured(NamedTuple):
    """`cpu_us`: the server's processor time per request, over all its processes and threads."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    statuses: dict[int, int]


class Server:
    """A process group pinned to the core of the server."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def _stats(self) -> Iterator[tuple[int, list[str]]]:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid:
                yield int(path.parent.name), fields

    def cpu_s(self) -> float:
        """Return processor seconds of all threads, including ended ones. Accurate to 1 ns; /proc only to 10 ms."""
        # Linux: the clock of another process is identified by its inverted id, that of the scheduler by 2.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid, _ in self._stats())

    def rss(self) -> int:
        """Return the resident bytes of the whole group."""
        return sum(int(fields[21]) for _, fields in self._stats()) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def served(command: list[str], url: str, **environment: str) -> Iterator[Server]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        process_group=0, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )  # fmt: skip
    # A benchmark that receives this signal stops its servers before it exits.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    try:
        _wait_for(url)
        yield Server(process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


# The same limits as in `controlplane.server.process`, for another application on the same server.
GRANIAN = [
    sys.executable, "-m", "granian", "--http", "1", "--no-ws", "--backpressure", "20000", "--backlog", "4096",
    "--log-level", "error", "--http1-buffer-size", "65536",
]  # fmt: skip


@contextmanager
def bare(application: str = "benchmarks.dataplane.bare:asgi") -> Iterator[tuple[Server, int]]:
    """Run the limit (`bare.py`) on the gateway's server. Yields it with its port."""
    from tests.support.services import free_port

    port = free_port()
    command = [*GRANIAN, "--interface", "asgi", "--port", str(port), application]
    with served(command, f"http://127.0.0.1:{port}/") as server:
        yield server, port


def tag(url: str, headers: dict[str, str]) -> tuple[str, int]:
    """Return the current ETag and the bytes of the body."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:  # noqa: S310
        return answer.headers["ETag"], len(answer.read())


def _wait_for(url: str) -> None:
    for _ in range(900):
        try:
            urllib.request.urlopen(url, timeout=30).close()  # noqa: S310 — our own server
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the previous response is complete."""

    def __init__(
        self, following: Callable[[], bytes | None], seen: list[float], statuses: dict[int, int]
    ) -> None:
        self._following, self._seen, self._statuses = following, seen, statuses
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = -1  # remaining bytes of the body; -1: still in the head
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._send()

    def _send(self) -> None:
        request = self._following()
        if request is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, body = self._head[:end].lower(), self._head[end + 4 :]
            status = int(head[9:12])
            self._statuses[status] = self._statuses.get(status, 0) + 1
            at = head.find(b"content-length:")
            length = 0 if at < 0 or status == 304 else int(head[at + 15 :].split(b"\r", 1)[0])
            self._left = length - len(body)
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._seen.append(time.perf_counter() - self._began)
            self._left, self._head = -1, b""
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server hung up"))


def stay_off_the_servers_core() -> None:
    os.sched_setaffinity(0, {LOAD_CORE})


def measure(
    server: Server, port: int, requests: "list[bytes] | bytes", count: int, connections: int = 64
) -> Measured:
    """Send `count` requests over this many connections; a list is sent in turn, a single one repeatedly."""
    stay_off_the_servers_core()
    given = [requests] if isinstance(requests, bytes) else requests
    numbers = iter(range(count))
    seen: list[float] = []
    statuses: dict[int, int] = {}

    def following() -> bytes | None:
        number = next(numbers, None)
        return None if number is None else given[number % len(given)]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda: _Connection(following, seen, statuses), "127.0.0.1", port)
            for _ in range(connections)
        ]
        await asyncio.gather(*(connection.done for _, connection in opened))

    cpu, began = server.cpu_s(), time.perf_counter()
    uvloop.run(run())
    took, cpu = time.perf_counter() - began, server.cpu_s() - cpu
    seen.sort()
    return Measured(
        cpu / count * 1e6,
        count / took,
        seen[len(seen) // 2] * 1e3,
        seen[int(len(seen) * 0.99)] * 1e3,
        statuses,
    )


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
