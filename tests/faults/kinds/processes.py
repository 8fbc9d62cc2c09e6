"""A process is killed, terminated or stopped, or can no longer open or write files."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.faults.installation import Process
from tests.faults.kinds.kind import fault
from tests.faults.kinds.place import Place

FEW = 8  # limit of open files, below the number that a process has open, so it cannot open another


def _killed(place: Place) -> None:
    place.process.signal(signal.SIGKILL)


def _ended(place: Place) -> None:
    place.process.running.send_signal(signal.SIGTERM)


def _stands_still(place: Place) -> None:
    process = place.process
    process.signal(signal.SIGSTOP)
    place.last(2)
    process.signal(signal.SIGCONT)


def _children_killed(place: Place) -> None:
    for child in place.process.children():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@contextmanager
def _limited(process: Process, what: int, most: int) -> Iterator[None]:
    """Limit a resource of the process and its children. They keep the files that are already open."""
    before: dict[int, tuple[int, int]] = {}
    for pid in (process.running.pid, *process.children()):
        with suppress(ProcessLookupError):
            before[pid] = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (most, before[pid][1]))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, what, limits)


@fault("gateway")
def gateway_killed(place: Place) -> None:
    _killed(place)


@fault("gateway")
def gateway_worker_killed(place: Place) -> None:
    """Granian's worker is killed; its parent restarts it."""
    _children_killed(place)


@fault("gateway")
def gateway_parent_killed(place: Place) -> None:
    """The worker becomes an orphan, and must not run forever."""
    place.process.running.kill()


@fault("gateway")
def gateway_ended(place: Place) -> None:
    _ended(place)


@fault("gateway")
def gateway_stands_still(place: Place) -> None:
    _stands_still(place)


@fault("gateway")
def gateway_opens_nothing(place: Place) -> None:
    """It has no free file descriptors, so it can neither accept nor open connections."""
    with _limited(place.process, resource.RLIMIT_NOFILE, FEW):
        place.last(2)


@fault("gateway")
def gateway_disk_full(place: Place) -> None:
    """It cannot write to files: its log, and on SQLite also its database."""
    with _limited(place.process, resource.RLIMIT_FSIZE, 0):
        place.last(2)


@fault("worker")
def worker_killed(place: Place) -> None:
    _killed(place)


@fault("worker")
def worker_pool_killed(place: Place) -> None:
    _children_killed(place)


@fault("worker")
def worker_ended(place: Place) -> None:
    _ended(place)


@fault("worker")
def worker_stands_still(place: Place) -> None:
    _stands_still(place)


@fault("worker")
def worker_opens_nothing(place: Place) -> None:
    with _limited(place.process, resource.RLIMIT_NOFILE, FEW):
        place.last(2)


@fault("beat")
def beat_killed(place: Place) -> None:
    _killed(place)


@fault("beat")
def beat_ended(place: Place) -> None:
    _ended(place)


@fault("beat")
def beat_stands_still(place: Place) -> None:
    _stands_still(place)


@fault("beat")
def beat_disk_full(place: Place) -> None:
    """It cannot write its log and its schedule."""
    with _limited(place.process, resource.RLIMIT_FSIZE, 0):
        place.last(3)
