"""The faults, by what they happen to. Each is done to one place and undone; the rest is the installation's own."""

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
