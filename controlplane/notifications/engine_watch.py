"""Reports that the engine has stopped. Every gateway process checks: if the workers died, nobody else would report
it."""

import logging
import threading

from django.db import transaction

from controlplane.core import heartbeats
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE
from controlplane.notifications import delivery, events, outbox

log = logging.getLogger(__name__)
CHECKED_EVERY_S = 10.0
DEAD_AFTER_S = 3 * heartbeats.DEAD_AFTER_S  # long enough that a restart of the workers is not reported


def watch_engine(stopping: threading.Event) -> None:
    """Check the engine until told to stop. After an error, the runner starts it again."""
    while not stopping.wait(CHECKED_EVERY_S):
        check_engine()


def check_engine() -> bool:
    """Report a dead engine once per failure. Return whether it is dead.

    An engine that never swept was never started; `/readyz` reports that.
    """
    age = heartbeats.engine_age()
    if age is None or age <= DEAD_AFTER_S:
        return False
    last = Heartbeat.objects.get(job=ENGINE).at
    with transaction.atomic():
        sentence = f"The engine has stopped: its last sweep ended {last:%Y-%m-%d %H:%M:%S} UTC. Nothing advances or is"
        new = outbox.emit(
            events.ENGINE_DEAD,
            f"{sentence} rolled back automatically.",
            key=f"engine.dead {last.isoformat()}",
        )
    if new:
        log.error("the engine has stopped: its last sweep ended %.0f s ago", age)
    delivery.run_due(
        pass_s=1.0
    )  # the workers that deliver may be dead, too; live ones have already claimed it
    return True
