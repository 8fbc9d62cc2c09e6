"""Reports that the engine has stopped. Every gateway process checks: if the workers died, nobody else would report
it."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from controlplane.core import heartbeats
from controlplane.notifications import delivery, events, outbox

log = logging.getLogger(__name__)
CHECKED_EVERY_S = 10.0
DEAD_AFTER_S = 3 * heartbeats.DEAD_AFTER_S  # long enough that a restart of the workers is not reported
WATCHED_S = 30.0  # a process that has just started, or reads the database again, waits for a sweep first


def watch_engine(stopping: threading.Event) -> None:
    """Check the engine until told to stop. After an error, the runner starts it again."""
    watch = EngineWatch()
    while not stopping.wait(CHECKED_EVERY_S):
        watch.check()


class EngineWatch:
    """Watches the heartbeat of the engine. `monotonic` returns seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last: datetime | None = None  # the heartbeat seen last, and when it was new to this process
        self._since = 0.0

    def check(self) -> bool:
        """Report a dead engine once per failure. Return whether it is dead.

        After an upgrade the gateways start first, with a heartbeat that is minutes old: it has to stay unchanged while
        this process watches. An engine that never swept was never started; `/readyz` reports that.
        """
        seen, now = heartbeats.engine_seen(), self._monotonic()
        if seen is None:
            return False
        last, age = seen
        if last != self._last:
            self._last, self._since = last, now
        if age <= DEAD_AFTER_S or now - self._since < WATCHED_S:
            return False
        _tell(last, age)
        # The workers that deliver may be dead, too; live ones have already claimed it.
        delivery.run_due(pass_s=1.0)
        return True


def _tell(last: datetime, age: float) -> None:
    sentence = (
        f"The engine has stopped: its last sweep ended {last:%Y-%m-%d %H:%M:%S} UTC. Nothing advances or is"
    )
    with transaction.atomic():
        new = outbox.emit(
            events.ENGINE_DEAD,
            f"{sentence} rolled back automatically.",
            key=f"engine.dead {last.isoformat()}",
        )
    if new:
        log.error("the engine has stopped: its last sweep ended %.0f s ago", age)
