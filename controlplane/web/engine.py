"""What the console says of the engine: when it last looked, and what to do when it does not any more."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.core import clock, heartbeats


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """`at`: when its last sweep ended. None: it never did, or a wrong clock wrote down when."""

    at: datetime | None
    dead: bool


def engine_seen() -> EngineSeen:
    at = heartbeats.engine_seen_at()
    dead = at is None or (clock.now() - at).total_seconds() > heartbeats.DEAD_AFTER_S
    return EngineSeen(at, dead)
