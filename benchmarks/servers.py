"""The cost of the server itself: the same 304 and the same 2 kB from memory, behind each possible server.

    python benchmarks/servers.py [rounds]             default: 9

All of them run at once on one core and are measured in turn, with 64 connections from the other core. Figures are
medians over the rounds, ratios are within a round, relative to the server and interface of `manage.py serve`.
"gateway" is the complete one: key, fleet, snapshot. Servers that are not installed are left out; `pip install uvicorn
httptools` adds the others.
"""

import statistics
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import gateway
from benchmarks.dataplane import load, table
from tests.support.services import free_port

ROUNDS = 9
SIZE = 2_181  # bytes of a snapshot of one workload
PLACE = "benchmarks.dataplane.bare"
UVICORN = [
    sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "error", "--ws", "none", "--loop", "uvloop",
]  # fmt: skip
ASGI = ["--interface", "asgi", "--loop", "uvloop"]
RSGI = ["--interface", "rsgi", "--loop", "uvloop"]
OURS = "granian, ASGI"
# Name, the module that it needs, the command up to its port, the rest of the command.
SERVERS = [
    (OURS, "granian", [*load.GRANIAN, *ASGI], f"{PLACE}:asgi"),
    (
        "granian, ASGI, asyncio",
        "granian",
        [*load.GRANIAN, "--interface", "asgi", "--loop", "asyncio"],
        f"{PLACE}:asgi",
    ),
    ("granian, RSGI", "granian", [*load.GRANIAN, *RSGI], f"{PLACE}:rsgi"),
    (
        "granian, RSGI, several threads",
        "granian",
        [*load.GRANIAN, *RSGI, "--runtime-mode", "mt"],
        f"{PLACE}:rsgi",
    ),
    ("uvicorn, ASGI, httptools", "uvicorn", [*UVICORN, "--http", "httptools"], f"{PLACE}:asgi"),
]


def main(rounds: int) -> None:
    with ExitStack() as stack:
        cases = _cases(stack)
        found: dict[str, list[tuple[load.Measured, load.Measured]]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (unchanged, whole) in cases.items():
                found[name].append((unchanged.measure(), whole.measure()))
    rows = []
    for name, measured in found.items():
        cells: list[object] = []
        for side in (0, 1):
            mine, limit = [m[side] for m in measured], [m[side] for m in found[OURS]]
            cells += [
                statistics.median(m.cpu_us for m in mine),
                statistics.median(a.cpu_us / b.cpu_us for a, b in zip(mine, limit, strict=True)),
                statistics.median(m.per_second for m in mine),
            ]
        rows.append([name, *cells])
    columns = ["", "304, CPU µs", f"× {OURS}", "req/s", "200 of 2 kB, CPU µs", f"× {OURS}", "req/s"]
    table.show("The cost of the server itself", columns, rows)


def _cases(stack: ExitStack) -> dict[str, tuple[gateway.Case, gateway.Case]]:
    """A 304 and a 200 for each of them."""
    cases = {}
    if nginx := stack.enter_context(gateway.nginx()):
        cases["nginx, a file"] = (nginx.case(SIZE, True), nginx.case(SIZE, False))
    for name, needed, command, application in SERVERS:
        if find_spec(needed) is None:
            print(f"{name}: {needed} is not installed, left out")
            continue
        port = free_port()
        started = load.served([*command, "--port", str(port), application], f"http://127.0.0.1:{port}/0")
        server = stack.enter_context(started)
        cases[name] = (
            gateway.bare_case((server, port), 0, True),
            gateway.bare_case((server, port), SIZE, False),
        )
    ours = stack.enter_context(gateway.serving(100))
    one = ours.case("?workload=w0", cached=False)
    cases["gateway"] = (ours.case("", cached=True), one)
    return cases


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
