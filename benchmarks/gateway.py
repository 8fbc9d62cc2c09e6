"""Polls: the gateway's processor time per request, compared with the bare server and with nginx.

    python benchmarks/gateway.py [workloads …]        default: 1 100 1000 10000

The servers share one core; the load has the other, with 64 connections. All servers run at once and are measured in
turn, round after round, so that other load on the machine affects all of them. A figure is the median over the
rounds, a ratio the median of the ratios within each round. nginx serves a file of the same size, and is left out if
it is not installed. The last table: polls while 500 clients send one byte a second each.
"""

import shutil
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load, table
from tests.support.services import free_port

ROUNDS = 9
COUNT = 4_000  # per round, fewer if they are large
BYTES = 40_000_000  # per round, at most
SNAPSHOT = "/router/v1/snapshot"
SLOW = 500


class Case(NamedTuple):
    """A server with its request; the status and size of the response."""

    server: load.Server
    port: int
    request: bytes
    status: int
    size: int

    def measure(self, connections: int = 64) -> load.Measured:
        count = max(16, min(COUNT, BYTES // max(self.size, 1)))
        measured = load.measure(self.server, self.port, self.request, count, min(connections, count))
        assert set(measured.statuses) == {self.status}, measured.statuses
        return measured


class Gateway(NamedTuple):
    """A gateway with this many workloads."""

    server: load.Server
    port: int
    workloads: int
    headers: dict[str, str]

    def case(self, query: str, *, cached: bool, since: bool = False) -> Case:
        tag, size = load.tag(f"http://127.0.0.1:{self.port}{SNAPSHOT}{query}", self.headers)
        held = {"If_None_Match": tag} if cached else {}
        path = f"{SNAPSHOT}?since={self.workloads}" if since else SNAPSHOT + query
        request = load.request("GET", path, **self.headers, **held)
        return Case(self.server, self.port, request, 304 if cached else 200, 0 if cached else size)


def main(sizes: list[int]) -> None:
    with ExitStack() as stack:
        bare = stack.enter_context(load.bare())
        peer = stack.enter_context(nginx())
        gateways = [stack.enter_context(serving(size)) for size in sizes]
        _small(gateways, bare, peer)
        _whole(gateways, bare, peer)
        _slow(gateways[-1])


def _small(gateways: list[Gateway], bare: tuple[load.Server, int], nginx: "Nginx | None") -> None:
    """The same request with environments of every size: is it near the limit, and is it constant?"""
    ten = "&".join(f"workload=w{n}" for n in range(10))
    rows = []
    for name, query, cached, since, least in (
        ("304, all workloads", "", True, False, 1),
        ("304, `?since=`", "", True, True, 1),
        ("200, one workload (`?workload=`)", "?workload=w0", False, False, 1),
        ("200, ten workloads (`?workload=` ten times)", f"?{ten}", False, False, 10),
    ):
        asked = [
            g.case(query, cached=cached, since=since) if g.workloads >= least else None for g in gateways
        ]
        size = max(case.size for case in asked if case)
        measured = _in_turn([bare_case(bare, size, cached), nginx and nginx.case(size, cached), *asked])
        limit, peer, *ours = measured
        known = [m for m in ours if m]
        worst = max(known, key=_cpu)
        flat = _cpu(worst) / min(map(_cpu, known))
        rate = statistics.median(m.per_second for m in worst)
        rows.append([name, size, *map(_shown, measured), _ratio(worst, limit), flat, rate])
        if peer is None:
            rows[-1][3] = "–"
    sizes = [f"{g.workloads:,}" for g in gateways]
    columns = [
        "CPU µs per request",
        "bytes",
        "bare app",
        "nginx",
        *sizes,
        "worst × bare",
        "worst × best",
        "req/s",
    ]
    table.show("Polls, by the number of workloads in the environment", columns, rows)


def _whole(gateways: list[Gateway], bare: tuple[load.Server, int], nginx: "Nginx | None") -> None:
    """The first 200 for a router that requests everything."""
    rows = []
    for gateway in gateways:
        case = gateway.case("", cached=False)
        measured = _in_turn([bare_case(bare, case.size, False), nginx and nginx.case(case.size, False), case])
        rate = statistics.median(m.per_second for m in measured[2] or [])
        row = [f"{gateway.workloads:,}", case.size, *map(_shown, measured)]
        rows.append([*row, _ratio(measured[2], measured[0]), rate])
    columns = ["workloads", "bytes", "bare app, CPU µs", "nginx", "gateway", "× bare", "req/s"]
    table.show("200 with all workloads, uncompressed", columns, rows)


def _slow(gateway: Gateway) -> None:
    """Polls of eight routers, alone and while 500 clients send one byte of a report each second."""
    case, rows = gateway.case("", cached=True), []
    head = load.request("POST", "/router/v1/outcomes", b"", **gateway.headers, Content_Length="5000")
    for name, slow in (("alone", 0), (f"with {SLOW} slow clients", SLOW), ("alone again", 0)):
        with _dripping(gateway.port, head, slow):
            found = [case.measure(connections=8) for _ in range(ROUNDS)]
        middle = [statistics.median(values) for values in zip(*(m[:4] for m in found), strict=True)]
        rows.append([name, *middle])
    table.show(
        "Polls (304) while slow clients are connected", ["", "CPU µs", "req/s", "p50 ms", "p99 ms"], rows
    )


def _in_turn(cases: "list[Case | None]") -> list[list[load.Measured] | None]:
    rounds = [[case and case.measure() for case in cases] for _ in range(ROUNDS)]
    columns = zip(*rounds, strict=True)
    return [[m for m in column if m] or None for column in columns]


def _cpu(measured: list[load.Measured]) -> float:
    return statistics.median(m.cpu_us for m in measured)


def _shown(measured: list[load.Measured] | None) -> object:
    return _cpu(measured) if measured else "–"


def _ratio(ours: list[load.Measured] | None, limit: list[load.Measured] | None) -> float:
    return statistics.median(a.cpu_us / b.cpu_us for a, b in zip(ours or [], limit or [], strict=True))


def bare_case(bare: tuple[load.Server, int], size: int, cached: bool) -> Case:
    held = {"If_None_Match": '"limit"'} if cached else {}
    request = load.request("GET", f"/{size}", Authorization="Bearer " + "x" * 80, **held)
    return Case(*bare, request, 304 if cached else 200, size)


@contextmanager
def serving(workloads: int) -> Iterator[Gateway]:
    port = free_port()
    with instance.filled(workloads) as made:
        url = f"http://127.0.0.1:{port}{SNAPSHOT}"
        with load.served([*instance.SERVE, "--port", str(port)], url, **made.environment) as server:
            yield Gateway(server, port, workloads, {"Authorization": f"Bearer {made.key}"})


class Nginx(NamedTuple):
    server: load.Server
    port: int
    home: Path

    def case(self, size: int, cached: bool) -> Case:
        (self.home / str(size)).write_bytes(b"x" * size)
        tag, _ = load.tag(f"http://127.0.0.1:{self.port}/{size}", {})
        held = {"If_None_Match": tag} if cached else {}
        request = load.request("GET", f"/{size}", Authorization="Bearer " + "x" * 80, **held)
        return Case(self.server, self.port, request, 304 if cached else 200, size)


@contextmanager
def nginx() -> Iterator[Nginx | None]:
    if not shutil.which("nginx"):
        print("nginx is not installed: left out (apt install nginx-light)")
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o755)
        (home / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {home}/pid; error_log /dev/null; user root;"
            "events { worker_connections 1024; } http { access_log off; keepalive_requests 10000000; "
            f"server {{ listen 127.0.0.1:{port}; root {home}; }} }}"
        )
        command = ["nginx", "-c", str(home / "nginx.conf")]
        with load.served(command, f"http://127.0.0.1:{port}/nginx.conf") as server:
            yield Nginx(server, port, home)


@contextmanager
def _dripping(port: int, head: bytes, number: int) -> Iterator[None]:
    """This many clients that have sent the head of a report, and send its body one byte a second."""
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
    ended = threading.Event()

    def drip() -> None:
        for client in clients:
            client.sendall(head)
        while not ended.wait(1):
            for client in clients:
                client.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    ended.wait(1.5)  # all of them are connected
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for client in clients:
            client.close()


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [1, 100, 1_000, 10_000])
