"""Whether the periodic jobs are alive, whoever runs them: the embedded runner here, or Celery's workers elsewhere.

A job that came to its end leaves a heartbeat in the database. Its age is told by `/readyz`, `/metrics` and the console.
"""

import threading
import time
from datetime import datetime

from controlplane.core import clock
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE

WRITTEN_EVERY_S = 5.0  # by one process
# An engine that has not swept for so long is dead. With what a heartbeat and a look at it may be late, that is told
# within half a minute.
DEAD_AFTER_S = 20.0
SKEW_S = 5.0  # a heartbeat may be this far ahead; beyond, a wrong clock wrote it, and it says nothing

_written: dict[str, float] = {}  # job → monotonic time
_lock = threading.Lock()


def beat(job: str) -> None:
    """The job goes on. To be called at its end, and by a long one between its parts."""
    now = time.monotonic()
    with _lock:
        if now - _written.get(job, float("-inf")) < WRITTEN_EVERY_S:
            return
        _written[job] = now
    try:
        Heartbeat.objects.update_or_create(job=job, defaults={"at": clock.now()})
    except BaseException:
        with _lock:
            _written.pop(job, None)  # the next call tries again
        raise


def ages() -> dict[str, float | None]:
    """Seconds since each job's last heartbeat; None where a wrong clock makes it worthless. One query."""
    now = clock.now()
    return {job: _age(at, now) for job, at in Heartbeat.objects.values_list("job", "at")}


def engine_age() -> float | None:
    """Seconds since the last sweep over all rollouts came to its end; None: it is not known."""
    return ages().get(ENGINE)


def engine_seen_at() -> datetime | None:
    """When that was, by the database's clock; None: it is not known."""
    at = Heartbeat.objects.filter(job=ENGINE).values_list("at", flat=True).first()
    return at if at is not None and _age(at, clock.now()) is not None else None


def _age(at: datetime, now: datetime) -> float | None:
    age = (now - at).total_seconds()
    return max(age, 0.0) if age >= -SKEW_S else None
