"""The database itself, or every connection to it."""

from collections.abc import Callable

from tests.faults.kinds.kind import away, fault, wrong
from tests.faults.kinds.place import Place
from tests.support import services
from tests.support.proxy import Proxy


def _all_ways(place: Place, how: Callable[[Proxy], object]) -> None:
    with wrong(*place.installation.databases, how=how):
        place.last(2)


@fault("database")
def database_locked(place: Place) -> None:
    with place.installation.administrator.lock():
        place.last(2)


@fault("database", "sqlite")
def file_read(place: Place) -> None:
    """A backup copies the file in one long read; meanwhile SQLite cannot write its journal back into the file."""
    with place.installation.administrator.reading():
        place.last(3)


@fault("database", "sqlite")
def file_rewritten(place: Place) -> None:
    """VACUUM rewrites the whole file under a lock that blocks all writes."""
    place.installation.administrator.rewrite()


@fault("database", "postgres")
def environments_locked(place: Place) -> None:
    """Another transaction holds the rows that every change of an environment locks first."""
    with place.installation.administrator.rows_locked():
        place.last(2)


@fault("database", "postgres")
def backends_killed(place: Place) -> None:
    place.installation.administrator.kill_backends()


@fault("database", "postgres")
def database_cut(place: Place) -> None:
    for proxy in place.installation.databases:
        proxy.cut()


@fault("database", "postgres")
def database_held(place: Place) -> None:
    for proxy in place.installation.databases:
        proxy.hold()


@fault("database", "postgres")
def database_away(place: Place) -> None:
    _all_ways(place, away)


@fault("database", "postgres")
def database_slow(place: Place) -> None:
    _all_ways(place, lambda proxy: proxy.delay(0.1))


@fault("database", "postgres")
def database_drips(place: Place) -> None:
    _all_ways(place, lambda proxy: proxy.drip(5_000))


@fault("database", "postgres")
def database_read_only(place: Place) -> None:
    with place.installation.administrator.read_only():
        place.last(2)


@fault("database", "postgres")
def connections_exhausted(place: Place) -> None:
    with place.installation.administrator.full():
        place.last(2)


@fault("database", "alone")
def postgres_stopped_at_once(place: Place) -> None:
    """An immediate shutdown, which requires recovery at the next start."""
    services.stop_postgres_at_once()
    place.last(1)
    services.start_postgres_again()
