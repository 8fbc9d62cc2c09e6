"""The clock of one process is wrong for a while, and is then corrected."""

from tests.faults.kinds.kind import fault
from tests.faults.kinds.place import Place

HOUR_S, DAY_S = 3_600, 86_400


def _wrong(place: Place) -> None:
    clock = place.process.clock
    clock.step(place.chance.choice((-DAY_S, -HOUR_S, HOUR_S, DAY_S)))
    place.last(3)
    clock.step(0)


@fault("gateway", "clock")
def gateway_clock_wrong(place: Place) -> None:
    _wrong(place)


@fault("worker", "clock")
def worker_clock_wrong(place: Place) -> None:
    _wrong(place)


@fault("beat", "clock")
def beat_clock_wrong(place: Place) -> None:
    _wrong(place)
