"""Faults that affect several processes at once."""

import signal

from tests.faults.kinds.kind import fault
from tests.faults.kinds.place import EVERYTHING, Place


def _killed(place: Place, name: str = "") -> None:
    for process in place.installation.named(name):
        process.signal(signal.SIGKILL)


@fault(EVERYTHING)
def everything_killed(place: Place) -> None:
    """Every process is killed, as in a crash of the machine."""
    _killed(place)


@fault(EVERYTHING, "postgres")
def gateways_killed(place: Place) -> None:
    _killed(place, "gateway")


@fault(EVERYTHING, "postgres")
def workers_killed(place: Place) -> None:
    _killed(place, "worker")


@fault(EVERYTHING, "postgres")
def workers_stand_still(place: Place) -> None:
    workers = place.installation.named("worker")
    for process in workers:
        process.signal(signal.SIGSTOP)
    place.last(3)
    for process in workers:
        process.signal(signal.SIGCONT)


@fault(EVERYTHING, "postgres")
def beats_killed(place: Place) -> None:
    _killed(place, "beat")
