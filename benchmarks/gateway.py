"""Polls: processor time per request of the gateway, beside the limit (a bare ASGI app on the same server) and nginx.

    python benchmarks/gateway.py [workloads …]        default: 1 10 100 1000 10000

The server has one core, the load the other, 64 connections. nginx is left out where it is not installed.
Also: publishing one change among all workloads, from its commit to the awaited answer, and the delta's size.
"""

import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load

COUNT = 20_000
GRANIAN = [
    sys.executable, "-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--no-ws",
    "--backpressure", "20000", "--backlog", "4096", "--log-level", "error",
]  # fmt: skip


def main(sizes: list[int]) -> None:
    rows: list[tuple[str, float, float]] = []
    for size in (2_000, 20_000):
        rows += limit(size)
    rows += nginx()
    bare = {"304": rows[0][1], "2 kB": rows[1][1], "20 kB": rows[3][1]}
    for workloads in sizes:
        rows += [(f"{name}, {workloads} workloads", cpu, rate) for name, cpu, rate in run_apart(workloads)]
    print(f"{'':46}{'CPU µs':>9}{'req/s':>9}{'× bare':>9}")
    for name, cpu, rate in rows:
        reference = bare["304"] if "304" in name else bare["20 kB" if "20 kB" in name else "2 kB"]
        print(f"{name:46}{cpu:9.1f}{rate:9.0f}{cpu / reference:9.2f}")


def limit(size: int) -> list[tuple[str, float, float]]:
    port, found = _port(), []
    command = [*GRANIAN, "--port", str(port), "benchmarks.dataplane.bare:application"]
    with load.served(command, f"http://127.0.0.1:{port}/", BARE_BODY=str(size)) as server:
        for name, headers in (("304", {"If_None_Match": '"limit"'}), (f"200 {size // 1000} kB", {})):
            asked = load.request("GET", "/", Authorization="Bearer " + "x" * 80, **headers)
            measured = _best(server, port, asked)
            found.append((f"bare ASGI app, {name}", measured.cpu_us, measured.per_second))
    return found


def nginx() -> list[tuple[str, float, float]]:
    if not shutil.which("nginx"):
        print("nginx is not installed: left out (apt install nginx-light)")
        return []
    port, home = _port(), Path(tempfile.mkdtemp())
    home.chmod(0o755)
    (home / "snapshot").write_bytes(b"x" * 2_000)
    (home / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {home}/pid; error_log /dev/null; user root;"
        "events { worker_connections 1024; } http { access_log off; keepalive_requests 10000000; "
        f"server {{ listen 127.0.0.1:{port}; root {home}; }} }}"
    )
    with load.served(
        ["nginx", "-c", str(home / "nginx.conf")], f"http://127.0.0.1:{port}/snapshot"
    ) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/snapshot") as answer:  # noqa: S310
            tag = answer.headers["ETag"]
        cached = _best(server, port, load.request("GET", "/snapshot", If_None_Match=tag))
        full = _best(server, port, load.request("GET", "/snapshot"))
    return [
        ("nginx, static file, 304", cached.cpu_us, cached.per_second),
        ("nginx, static file, 200 2 kB", full.cpu_us, full.per_second),
    ]


def run_apart(workloads: int) -> list[tuple[str, float, float]]:
    """Each size in a process of its own: settings are read once."""
    import subprocess

    done = subprocess.run(
        [sys.executable, __file__, "--one", str(workloads)], check=True, stdout=subprocess.PIPE
    )
    *said, rows = done.stdout.decode().splitlines()
    for line in said:
        print(line)
    return [tuple(row) for row in json.loads(rows)]


def one(workloads: int) -> None:
    instance.prepare()
    key, port, found = instance.fill(workloads), _port(), []
    command = [sys.executable, str(instance.ROOT / "manage.py"), "serve", "--port", str(port)]
    auth = {"Authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{port}/router/v1/snapshot"
    with load.served(command, url) as server:
        tag, size = _tag(url, auth)
        asked = {"304": load.request("GET", "/router/v1/snapshot", **auth, If_None_Match=tag)}
        since = f"/router/v1/snapshot?since={workloads}"
        asked["304 with since"] = load.request("GET", since, **auth, If_None_Match=tag)
        asked["200 2 kB (delta of one)"] = load.request(
            "GET", f"/router/v1/snapshot?since={workloads - 1}", **auth
        )
        if size < 100_000:
            asked[f"200 {size / 1000:.0f} kB (all)"] = load.request("GET", "/router/v1/snapshot", **auth)
        for name, sent in asked.items():
            measured = _best(server, port, sent)
            assert set(measured.statuses) == {int(name[:3])}, measured.statuses
            found.append((f"gateway, {name}", measured.cpu_us, measured.per_second))
        print(
            f"{workloads} workloads: the full body is {size / 1e6:.2f} MB; {_publishing(url, auth, tag, workloads)}"
        )
    print(json.dumps(found))


def _publishing(url: str, auth: dict[str, str], tag: str, revision: int) -> str:
    """Pin a workload 15 times; how long until a waiting router of that server has its delta."""
    from controlplane.actors import SYSTEM
    from policies_app import actions
    from policies_app.models import Assignment

    took, sizes, acting = [], [], []
    for number in range(15):
        answered: list[Any] = []
        headers = {**auth, "If-None-Match": tag, "Prefer": "wait=30"}
        asked = urllib.request.Request(f"{url}?since={revision + number}", headers=headers)  # noqa: S310

        def poll(asked: Any = asked, answered: list[Any] = answered) -> None:
            with urllib.request.urlopen(asked) as answer:  # noqa: S310
                answered.append((time.perf_counter(), answer.headers["ETag"], len(answer.read())))

        waiting = threading.Thread(target=poll)
        waiting.start()
        time.sleep(0.3)
        assignment = Assignment.objects.select_related("workload", "environment", "baseline").latest("pk")
        began = time.perf_counter()
        if number % 2:
            actions.unpin(assignment, actor=SYSTEM, reason="bench")
        else:
            actions.pin(assignment, "large", actor=SYSTEM, reason="bench")
        committed = time.perf_counter()
        waiting.join()
        at, tag, size = answered[0]
        took.append((at - committed) * 1e3)
        acting.append((committed - began) * 1e3)
        sizes.append(size)
    return (
        f"a change takes {statistics.median(acting):.0f} ms to commit, and reaches a waiting router of another "
        f"process (no Redis: looked at every 200 ms) {statistics.median(took):.0f} ms later (worst {max(took):.0f}), "
        f"as a delta of {max(sizes)} bytes"
    )


def _best(server: load.Server, port: int, asked: bytes) -> load.Measured:
    """The best of three: what else runs on the machine can only add."""
    return min(load.measure(server, port, asked, COUNT) for _ in range(3))


def _tag(url: str, headers: dict[str, str]) -> tuple[str, int]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:  # noqa: S310
        return answer.headers["ETag"], len(answer.read())


def _port() -> int:
    from tests.services import free_port

    return free_port()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        main([int(size) for size in sys.argv[1:]] or [1, 10, 100, 1_000, 10_000])
