"""The faults, by the component that they affect. Each is applied to one place and undone; processes recover alone."""

from tests.faults.kinds import broker, clients, clocks, database, everything, links, processes
from tests.faults.kinds.kind import KINDS, Kind, possible
from tests.faults.kinds.place import Place

__all__ = [
    "KINDS",
    "Kind",
    "Place",
    "broker",
    "clients",
    "clocks",
    "database",
    "everything",
    "links",
    "possible",
    "processes",
]
