"""unleash-server beside the gateway: polls and reports, on one core each, in the same run with the same load.

    python benchmarks/unleash.py [directory]

Installs unleash-server from npm into a temporary directory, or into the one that is named, to use it again. Both
run on a PostgreSQL that waits for the disk, which this script brings; the server that is measured has one core, the
load and PostgreSQL the other. Figures are the server's own processor time, PostgreSQL's not counted, as the median
of rounds that measure the two in turn. What is compared is not the same in one point: unleash-server answers a
report from memory and writes it later, the gateway after its commit.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load, table
from tests.services import free_port

PACKAGE = "unleash-server@8.2.0"
ROUNDS = 5
FEW, MANY = 1, 100  # flags, workloads
BACKEND, ADMIN = "default:development.bench-backend", "*:*.bench-admin"
FEATURES, METRICS = "/api/client/features", "/api/client/metrics"
SNAPSHOT, OUTCOMES = "/router/v1/snapshot", "/router/v1/outcomes"


class Asked(NamedTuple):
    """Requests to one server, each sent once a round and again; the statuses that answer them."""

    server: load.Server
    port: int
    requests: Callable[[], list[bytes]]
    status: int
    count: int
    size: int = 0  # bytes of an answer

    def measure(self) -> load.Measured:
        measured = load.measure(self.server, self.port, self.requests(), self.count)
        assert set(measured.statuses) == {self.status}, measured.statuses
        return measured


def main(directory: str) -> None:
    if not shutil.which("npm") or not shutil.which("node"):
        print("npm or node is missing: unleash-server cannot be installed, nothing is compared")
        return
    with ExitStack() as stack:
        home = Path(directory or stack.enter_context(tempfile.TemporaryDirectory()))
        if not _install(home):
            return
        bare, rows = stack.enter_context(load.bare()), []
        for number in (FEW, MANY):
            with _unleash(home, number) as theirs, _gateway(number) as ours:
                rows += [_compared(*question) for question in _questions(theirs, ours, bare, number)]
    columns = [
        "CPU µs per request",
        "unleash",
        "gateway",
        "bare app",
        "unleash ÷ gateway",
        "unleash /s",
        "gateway /s",
    ]
    table.show(f"{PACKAGE} on node {_version()} and the gateway, one core each", columns, rows)


def _compared(name: str, theirs: Asked, ours: Asked, limit: Asked | None) -> list[object]:
    rounds = [[asked.measure() for asked in (theirs, ours, limit) if asked] for _ in range(ROUNDS)]
    sides = list(zip(*rounds, strict=True))
    cpu: list[object] = [statistics.median(m.cpu_us for m in side) for side in sides]
    rate = [statistics.median(m.per_second for m in side) for side in sides[:2]]
    ratio = statistics.median(a.cpu_us / b.cpu_us for a, b, *_ in rounds)
    return [name, *cpu, *([] if limit else ["–"]), ratio, *rate]


class Theirs(NamedTuple):
    server: load.Server
    port: int

    def poll(self, cached: bool) -> Asked:
        tag, _ = load.tag(f"http://127.0.0.1:{self.port}{FEATURES}", {"Authorization": BACKEND})
        held = {"If_None_Match": tag} if cached else {}
        sent = [load.request("GET", FEATURES, Authorization=BACKEND, **held)]
        return Asked(self.server, self.port, lambda: sent, 304 if cached else 200, 1_000)

    def report(self, flags: int) -> Asked:
        def requests() -> list[bytes]:
            return [self._report(router, flags) for router in range(64)]

        return Asked(self.server, self.port, requests, 202, 600)

    def _report(self, router: int, flags: int) -> bytes:
        stop = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        toggles = {f"flag-{n}": {"yes": 92, "no": 8, "variants": {"a": 90, "b": 2}} for n in range(flags)}
        report = {"appName": "bench", "instanceId": f"r-{router}", "environment": "development"}
        report |= {"bucket": {"start": stop, "stop": stop, "toggles": toggles}}  # type: ignore[dict-item]
        return load.request(
            "POST",
            METRICS,
            json.dumps(report).encode(),
            Authorization=BACKEND,
            Content_Type="application/json",
        )


class Ours(NamedTuple):
    server: load.Server
    port: int
    key: str

    def poll(self, cached: bool) -> Asked:
        auth = {"Authorization": f"Bearer {self.key}"}
        tag, size = load.tag(f"http://127.0.0.1:{self.port}{SNAPSHOT}", auth)
        held = {"If_None_Match": tag} if cached else {}
        sent = [load.request("GET", SNAPSHOT, **auth, **held)]
        return Asked(self.server, self.port, lambda: sent, 304 if cached else 200, 4_000, size)

    def report(self, buckets: int) -> Asked:
        count = max(120, 1_200 // buckets)

        def requests() -> list[bytes]:  # each batch is counted once, so each is a new one
            minute = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime())
            return [
                load.request(
                    "POST",
                    OUTCOMES,
                    instance.report(buckets, n % 64, minute),
                    Authorization=f"Bearer {self.key}",
                )
                for n in range(count)
            ]

        return Asked(self.server, self.port, requests, 202, count)


def _questions(
    theirs: Theirs, ours: Ours, bare: tuple[load.Server, int], number: int
) -> Iterator[tuple[str, Asked, Asked, Asked | None]]:
    what = f"{number} flag(s) / workload(s)"
    for name, cached in (("poll, nothing newer (304)", True), ("poll, all of it (200)", False)):
        mine = ours.poll(cached)
        held = {"If_None_Match": '"limit"'} if cached else {}
        sent = [load.request("GET", f"/{mine.size}", Authorization="Bearer " + "x" * 80, **held)]
        yield f"{name}, {what}", theirs.poll(cached), mine, Asked(*bare, lambda s=sent: s, mine.status, 4_000)  # type: ignore[misc]
    yield f"report of {what}", theirs.report(number), ours.report(number), None


@contextmanager
def _gateway(workloads: int) -> Iterator[Ours]:
    port = free_port()
    with instance.filled(workloads, instance.new_database()) as made:
        url = f"http://127.0.0.1:{port}{SNAPSHOT}"
        with load.served([*instance.SERVE, "--port", str(port)], url, **made.environment) as server:
            yield Ours(server, port, made.key)


@contextmanager
def _unleash(home: Path, flags: int) -> Iterator[Theirs]:
    """On loopback, asking nobody for a newer version and telling nobody of itself; its rate limits out of the way."""
    port = free_port()
    limits = ("SDK_API", "TOKEN_AUTHENTICATION", "REGISTER_CLIENT", "CLIENT_METRICS")
    environment = {
        "NODE_ENV": "production", "TZ": "UTC", "LOG_LEVEL": "error", "HOME": str(home),
        "DATABASE_URL": instance.new_database(), "DATABASE_SSL": "false",
        "HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port), "CHECK_VERSION": "false", "SEND_TELEMETRY": "false",
        "INIT_BACKEND_API_TOKENS": BACKEND, "INIT_ADMIN_API_TOKENS": ADMIN,
        **{f"{name}_RATE_LIMIT_PER_MINUTE": "100000000" for name in limits},
    }  # fmt: skip
    command = ["node", str(home / "node_modules/unleash-server/dist/server.js")]
    with load.served(command, f"http://127.0.0.1:{port}/health", **environment) as server:
        for number in range(flags):
            _make_flag(port, f"flag-{number}")
        _until_served(port, flags)
        yield Theirs(server, port)


def _make_flag(port: int, name: str) -> None:
    """A flag that is on for half of the users, in the one environment that the load reads."""
    features = "/api/admin/projects/default/features"
    rollout = {"rollout": "50", "stickiness": "default", "groupId": name}
    _post(port, features, {"name": name, "type": "release"})
    _post(
        port,
        f"{features}/{name}/environments/development/strategies",
        {"name": "flexibleRollout", "parameters": rollout},
    )
    _post(port, f"{features}/{name}/environments/development/on", {})


def _until_served(port: int, flags: int) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"http://127.0.0.1:{port}{FEATURES}", headers={"Authorization": BACKEND}
    )
    for _ in range(100):
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            if len(json.load(answer)["features"]) == flags:
                return
        time.sleep(0.2)
    raise SystemExit("unleash-server does not serve its flags")


def _post(port: int, path: str, document: Any) -> None:
    headers = {"Authorization": ADMIN, "Content-Type": "application/json"}
    body = json.dumps(document).encode()
    urllib.request.urlopen(  # noqa: S310
        urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)  # noqa: S310
    ).close()


def _install(home: Path) -> bool:
    home.mkdir(parents=True, exist_ok=True)
    if (home / "node_modules" / "unleash-server").exists():
        return True
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(home),
        PACKAGE,
    ]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"npm could not install {PACKAGE}, nothing is compared:\n{done.stderr.strip()}")
    return done.returncode == 0


def _version() -> str:
    command = [str(shutil.which("node")), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
