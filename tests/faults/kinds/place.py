"""The place of a fault. No two faults affect one place at the same time."""

import random
from dataclasses import dataclass

from tests.faults.installation import Installation, Process, pause
from tests.faults.load import Load
from tests.faults.routers import RealRouter
from tests.support.proxy import Proxy

EVERYTHING = "everything"


@dataclass(frozen=True)
class Place:
    """A place in the installation.

    part    gateway, worker, beat, clients, Redis, database or everything
    number  distinguishes places of the same part
    """

    installation: Installation
    load: Load
    chance: random.Random
    part: str
    number: int = 0

    @property
    def process(self) -> Process:
        return self.installation.named(self.part)[self.number]

    @property
    def door(self) -> Proxy:
        """The proxy between the routers and their gateway."""
        return self.installation.doors[self.number]

    @property
    def port(self) -> int:
        """The port of this gateway itself, without its proxy."""
        return int(self.installation.direct[self.number % len(self.installation.direct)].rpartition(":")[2])

    @property
    def routers(self) -> tuple[RealRouter, ...]:
        """The routers of this gateway."""
        return self.load.routers[self.number], self.load.recorders[self.number]

    def last(self, longest_s: float) -> None:
        """Wait for the duration of the fault: between half of `longest_s` and all of it."""
        pause(self.chance.uniform(longest_s / 2, longest_s))


def places(installation: Installation) -> list[tuple[str, int]]:
    """Return (part, number) of every place except "everything"."""
    found = [("database", 0)]
    for part, number in (("gateway", 2), ("clients", 2), ("worker", 2), ("beat", 2), ("Redis", 1)):
        if installation.on_postgres:
            found += [(part, n) for n in range(number)]
        elif part == "gateway":
            found.append((part, 0))
        elif part == "clients":
            found += [(part, n) for n in range(len(installation.doors))]
    return found
