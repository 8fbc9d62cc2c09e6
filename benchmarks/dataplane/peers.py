"""The gateway compared with another server: the same load on each in turn, after both have warmed up.

The first requests are not representative: node compiles code that runs often, which takes some thousand requests
(the first thousand of unleash-server take three times as long as the tenth).
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.dataplane import instance, load
from tests.support.services import free_port

SNAPSHOT, OUTCOMES = "/router/v1/snapshot", "/router/v1/outcomes"
ROUNDS = 7
# A server is warm when UNIMPROVED measurements in a row were less than 3 % better than its best, or after AT_MOST_S.
UNIMPROVED, FASTER, AT_MOST_S = 4, 0.97, 20.0


class Asked(NamedTuple):
    """Requests to one server, each repeated every round, and the expected status."""

    server: load.Server
    port: int
    requests: Callable[[], list[bytes]]
    status: int
    count: int
    size: int = 0  # bytes of a response

    def measure(self) -> load.Measured:
        measured = load.measure(self.server, self.port, self.requests(), self.count)
        assert set(measured.statuses) == {self.status}, measured.statuses
        return measured

    def warm_up(self) -> None:
        best, unimproved, began = float("inf"), 0, time.monotonic()
        while unimproved < UNIMPROVED and time.monotonic() - began < AT_MOST_S:
            cost = self.measure().cpu_us
            unimproved = 0 if cost < FASTER * best else unimproved + 1
            best = min(best, cost)


class Side(NamedTuple):
    """The processor time of one server, by round."""

    rounds: Sequence[load.Measured]

    @property
    def cpu_us(self) -> float:
        return statistics.median(measured.cpu_us for measured in self.rounds)

    @property
    def per_second(self) -> float:
        return statistics.median(measured.per_second for measured in self.rounds)

    def times(self, other: "Side") -> str:
        """Return the ratio to the other server: the median over the rounds, with the minimum and the maximum."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        ratios = sorted(mine.cpu_us / theirs.cpu_us for mine, theirs in pairs)
        return f"{statistics.median(ratios):.1f} ({ratios[0]:.1f}–{ratios[-1]:.1f})"


def compared(*sides: Asked) -> list[Side]:
    """Warm up each, then measure them in turn, round after round."""
    for asked in sides:
        asked.warm_up()
    rounds = [[asked.measure() for asked in sides] for _ in range(ROUNDS)]
    return [Side(side) for side in zip(*rounds, strict=True)]


def limit(bare: tuple[load.Server, int], size: int, *, cached: bool) -> Asked:
    """Measure a response of this size from the bare app, or its 304."""
    held = {"If_None_Match": '"limit"'} if cached else {}
    sent = [load.request("GET", f"/{size}", Authorization="Bearer " + "x" * 80, **held)]
    return Asked(*bare, lambda: sent, 304 if cached else 200, 4_000, size)


class Gateway(NamedTuple):
    server: load.Server
    port: int
    key: str

    def poll(self, *, cached: bool) -> Asked:
        auth = {"Authorization": f"Bearer {self.key}"}
        tag, size = load.tag(f"http://127.0.0.1:{self.port}{SNAPSHOT}", auth)
        held = {"If_None_Match": tag} if cached else {}
        sent = [load.request("GET", SNAPSHOT, **auth, **held)]
        return Asked(self.server, self.port, lambda: sent, 304 if cached else 200, 4_000, size)

    def report(self, buckets: int) -> Asked:
        count = max(120, 1_200 // buckets)

        def requests() -> list[bytes]:  # a repeated batch would not be counted, so each is new
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


@contextmanager
def gateway(workloads: int) -> Iterator[Gateway]:
    """Run a gateway with this many workloads, on the PostgreSQL of this run."""
    port = free_port()
    with instance.filled(workloads, instance.new_database()) as made:
        url = f"http://127.0.0.1:{port}{SNAPSHOT}"
        with load.served([*instance.SERVE, "--port", str(port)], url, **made.environment) as server:
            yield Gateway(server, port, made.key)
