"""What the console shows about the engine: when it last swept, and whether it is dead."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.core import heartbeats


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """`at` is when the last sweep ended; None if none has ended yet, or a wrong clock wrote the time."""

    at: datetime | None
    dead: bool


def engine_seen() -> EngineSeen:
    seen = heartbeats.engine_seen()
    if seen is None:
        return EngineSeen(None, dead=True)
    at, age_s = seen
    return EngineSeen(at, dead=age_s > heartbeats.DEAD_AFTER_S)
