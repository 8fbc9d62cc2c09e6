"""The connection of one process to the database fails; the others work."""

from collections.abc import Callable
from functools import partial

from tests.faults.kinds.kind import away, fault, wrong
from tests.faults.kinds.place import Place
from tests.support.proxy import Proxy


def _for_a_while(place: Place, how: Callable[[Proxy], object]) -> None:
    with wrong(place.process.database, how=how):
        place.last(2)


_late = partial(Proxy.delay, seconds=0.1)
_drips = partial(Proxy.drip, bytes_per_s=5_000)


@fault("gateway", "postgres")
def gateway_has_no_database(place: Place) -> None:
    _for_a_while(place, away)


@fault("gateway", "postgres")
def gateway_database_cut(place: Place) -> None:
    place.process.database.cut()


@fault("gateway", "postgres")
def gateway_database_held(place: Place) -> None:
    """Half-open, as when a firewall has forgotten the connection. It is not healed afterwards."""
    place.process.database.hold()


@fault("gateway", "postgres")
def gateway_database_slow(place: Place) -> None:
    _for_a_while(place, _late)


@fault("gateway", "postgres")
def gateway_database_drips(place: Place) -> None:
    _for_a_while(place, _drips)


@fault("worker")
def worker_has_no_database(place: Place) -> None:
    _for_a_while(place, away)


@fault("worker")
def worker_database_cut(place: Place) -> None:
    place.process.database.cut()


@fault("worker")
def worker_database_held(place: Place) -> None:
    place.process.database.hold()


@fault("worker")
def worker_database_slow(place: Place) -> None:
    _for_a_while(place, _late)
