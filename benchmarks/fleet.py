"""The database work for a fleet: recording the routers that polled, and counting those that are up to date.

    python benchmarks/fleet.py [routers …]           default: 1000 10000
A gateway writes each of its routers every 25 s. The engine counts them at every evaluation of a running rollout, and so
does the home page at each refresh; the fleet page sorts them as well.
Figures are the processor time of this process (PostgreSQL's is separate) and the elapsed time, as medians of rounds.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, table

ROUNDS = 5


def main(numbers: list[int]) -> None:
    instance.prepare(instance.durable_postgres())
    instance.fill(10)
    rows = [row for number in numbers for row in _measured(number)]
    columns = ["what", "routers", "µs of CPU per router", "ms in total"]
    table.show("The fleet in PostgreSQL", columns, rows)


def _measured(number: int) -> list[list[object]]:
    from django.test import RequestFactory

    from policies_app.console import fleet
    from policies_app.fleet import readback
    from policies_app.fleet.buffer import FleetBuffer
    from policies_app.fleet.writer import flush
    from policies_app.models import Environment, Router

    environment = Environment.objects.get()
    Router.objects.all().delete()

    def write() -> None:
        heard = FleetBuffer()
        for n in range(number):
            heard.polled(environment.pk, f"router-{n}", "pointsman-python/0.1.0", environment.epoch, 1)
        flush(heard)

    def count() -> None:
        assert readback.read_back(environment, 0).confirmed == number

    def show() -> None:
        assert len(fleet._fleet(RequestFactory().get("/"), environment)["rows"]) == fleet.PER_PAGE

    whats = {"stored": write, "counted": count, "sorted for the fleet page": show}
    return [_row(what, number, work) for what, work in whats.items()]


def _row(what: str, number: int, work: Callable[[], None]) -> list[object]:
    work()
    cpu, wall = [], []
    for _ in range(ROUNDS):
        began, cpu_began = time.perf_counter(), time.process_time()
        work()
        cpu.append((time.process_time() - cpu_began) / number * 1e6)
        wall.append((time.perf_counter() - began) * 1e3)
    return [what, number, statistics.median(cpu), statistics.median(wall)]


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1_000, 10_000])
