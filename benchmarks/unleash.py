"""unleash-server compared with the gateway: polls and reports, on one core each, in the same run with the same load.

    python benchmarks/unleash.py [directory]

Installs unleash-server and the node version that it needs from npm into a temporary directory, or into the given one,
to reuse it. It runs as its documentation recommends for production, without its API documentation and with its
response cache. Both run on a PostgreSQL that waits for the disk, which this script starts. The measured server has one
core, the load and PostgreSQL the other. Figures are the server's own processor time without PostgreSQL's, as medians
of rounds that measure the two in turn once both are warm. The comparison is unequal in one point: unleash-server
answers a report from memory and writes it later, the gateway answers after its commit.
"""

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load, peers, table
from benchmarks.dataplane.peers import Asked
from tests.support.services import free_port

PACKAGE = "unleash-server@8.2.0"
# It needs node 22 or newer, which a distribution may not have.
MACHINE = {"aarch64": "arm64"}.get(platform.machine(), "x64")
NODE, NODE_VERSION = f"node-linux-{MACHINE}", "22.23.3"
SERVER = "node_modules/unleash-server/dist/server.js"
FEW, MANY = 1, 100  # flags, workloads
BACKEND, ADMIN = "default:development.bench-backend", "*:*.bench-admin"
FEATURES, METRICS = "/api/client/features", "/api/client/metrics"


def main(directory: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        print("npm is missing: unleash-server cannot be installed, nothing is compared")
        return
    with ExitStack() as stack:
        home = Path(directory or stack.enter_context(tempfile.TemporaryDirectory()))
        if not _install(npm, home):
            return
        bare, rows = stack.enter_context(load.bare()), []
        for number in (FEW, MANY):
            with _unleash(home, number) as theirs, peers.gateway(number) as ours:
                rows += _compared(theirs, ours, bare, number)
    columns = [
        "CPU µs per request",
        "unleash",
        "gateway",
        "bare app",
        "unleash ÷ gateway",
        "unleash /s",
        "gateway /s",
    ]
    table.show(f"{PACKAGE} on node {NODE_VERSION} and the gateway, one core each", columns, rows)


def _compared(
    theirs: "Theirs", ours: peers.Gateway, bare: tuple[load.Server, int], number: int
) -> Iterator[list[object]]:
    what = f"{number} flag(s) / workload(s)"
    for name, cached in (("poll, nothing newer (304)", True), ("poll, all of it (200)", False)):
        mine = ours.poll(cached=cached)
        sides = peers.compared(theirs.poll(cached=cached), mine, peers.limit(bare, mine.size, cached=cached))
        yield _row(f"{name}, {what}", *sides)
    yield _row(f"report of {what}", *peers.compared(theirs.report(number), ours.report(number)))


def _row(name: str, theirs: peers.Side, ours: peers.Side, limit: peers.Side | None = None) -> list[object]:
    bare = limit.cpu_us if limit else "–"
    return [name, theirs.cpu_us, ours.cpu_us, bare, theirs.times(ours), theirs.per_second, ours.per_second]


class Theirs(NamedTuple):
    server: load.Server
    port: int

    def poll(self, *, cached: bool) -> Asked:
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


@contextmanager
def _unleash(home: Path, flags: int) -> Iterator[Theirs]:
    """Run it on loopback, without version checks, telemetry or rate limits."""
    port = free_port()
    limits = ("SDK_API", "TOKEN_AUTHENTICATION", "REGISTER_CLIENT", "CLIENT_METRICS")
    environment = {
        "NODE_ENV": "production", "TZ": "UTC", "LOG_LEVEL": "error", "HOME": str(home),
        "DATABASE_URL": instance.new_database(), "DATABASE_SSL": "false",
        "HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port), "CHECK_VERSION": "false", "SEND_TELEMETRY": "false",
        "ENABLE_OAS": "false",
        "INIT_BACKEND_API_TOKENS": BACKEND, "INIT_ADMIN_API_TOKENS": ADMIN,
        **{f"{name}_RATE_LIMIT_PER_MINUTE": "100000000" for name in limits},
    }  # fmt: skip
    command = [str(home / f"node_modules/{NODE}/bin/node"), str(home / SERVER)]
    with load.served(command, f"http://127.0.0.1:{port}/health", **environment) as server:
        for number in range(flags):
            _make_flag(port, f"flag-{number}")
        _until_served(port, flags)
        yield Theirs(server, port)


def _make_flag(port: int, name: str) -> None:
    """Create a flag that is on for half of the users, in the one environment that the load reads."""
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


def _install(npm: str, home: Path) -> bool:
    home.mkdir(parents=True, exist_ok=True)
    if (home / SERVER).exists() and (home / "node_modules" / NODE).exists():
        return True
    wanted = [PACKAGE, f"{NODE}@{NODE_VERSION}"]
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home)]
    done = subprocess.run(
        [npm, "install", *options, *wanted], cwd=home, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"npm could not install {' and '.join(wanted)}, nothing is compared:\n{done.stderr.strip()}")
    return done.returncode == 0


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
