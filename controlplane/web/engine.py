"""What the console shows about the engine: when it last swept, and whether it is dead."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.core import clock, heartbeats


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """`at` is when the last sweep ended; None if it never did or a wrong clock wrote the time."""

    at: datetime | None
    dead: bool


def engine_seen() -> EngineSeen:
    at = heartbeats.engine_seen_at()
    dead = at is None or (clock.now() - at).total_seconds() > heartbeats.DEAD_AFTER_S
    return EngineSeen(at, dead)
