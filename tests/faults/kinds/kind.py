"""The definition of a fault, and the selection of faults for an installation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.faults.installation import Installation
from tests.faults.kinds.place import EVERYTHING, Place
from tests.support import services
from tests.support.proxy import Proxy

Inject = Callable[[Place], None]
ON_SQLITE = ("gateway", "clients", "database", EVERYTHING)  # the parts that an installation on SQLite has


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    part   the affected component
    needs  nothing, "sqlite", "postgres", "clock" (one that can be set wrong), or "alone": a PostgreSQL server that
           nobody else uses
    """

    name: str
    part: str
    inject: Inject
    needs: str

    @property
    def on_postgres_only(self) -> bool:
        return self.part not in ON_SQLITE or self.needs in ("postgres", "alone")


KINDS: list[Kind] = []


def fault(part: str, needs: str = "") -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        KINDS.append(Kind(inject.__name__, part, inject, needs))
        return inject

    return add


def possible(installation: Installation, *, whole: bool) -> list[Kind]:
    """Return the kinds that are possible in the installation; all of them if `whole`.

    Otherwise, on PostgreSQL, leave out those that are possible on SQLite, so that one short run on each database covers
    every kind once, and those that would stop the server while other tests use it.
    """
    has = {"", *(("clock",) if installation.clocks is not None else ())}
    if not installation.on_postgres:
        has.add("sqlite")
        return [kind for kind in KINDS if kind.part in ON_SQLITE and kind.needs in has]
    has |= {"postgres", *(("alone",) if whole and services.may_restart_postgres() else ())}
    return [kind for kind in KINDS if kind.needs in has and (whole or kind.on_postgres_only)]


@contextmanager
def wrong(*proxies: Proxy, how: Callable[[Proxy], object]) -> Iterator[None]:
    """Break each proxy in this way, and heal it at the end."""
    for proxy in proxies:
        how(proxy)
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.heal()


def away(proxy: Proxy) -> None:
    """Refuse new connections, and reset the existing ones."""
    proxy.refuse()
    proxy.cut()
