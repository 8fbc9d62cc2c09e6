"""Liveness of the periodic jobs, whether the embedded runner or Celery workers run them.

A job that finishes writes a heartbeat to the database. `/readyz`, `/metrics` and the console show its age.
"""

import threading
import time
from datetime import datetime

from controlplane.core import clock
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE

WRITTEN_EVERY_S = 5.0  # by each process, at most
# An engine that has not swept for this long is dead. Including delays in writing and reading the heartbeat, a dead
# engine is reported within half a minute.
DEAD_AFTER_S = 20.0
SKEW_S = 5.0  # a heartbeat further in the future than this was written by a wrong clock and is ignored

_written: dict[str, float] = {}  # job → monotonic time
_lock = threading.Lock()


def beat(job: str) -> None:
    """Record that the job is alive. Call it when the job ends and, in a long job, between its parts."""
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
    """Return the seconds since each job's last heartbeat; None if a wrong clock wrote it. One query."""
    now = clock.now()
    return {job: _age(at, now) for job, at in Heartbeat.objects.values_list("job", "at")}


def engine_age() -> float | None:
    """Return the seconds since the last sweep over all rollouts ended; None if unknown."""
    return ages().get(ENGINE)


def engine_seen() -> tuple[datetime, float] | None:
    """Return when the last sweep ended, by the database's clock, and the seconds since; None if unknown."""
    at = Heartbeat.objects.filter(job=ENGINE).values_list("at", flat=True).first()
    age = None if at is None else _age(at, clock.now())
    return None if at is None or age is None else (at, age)


def _age(at: datetime, now: datetime) -> float | None:
    age = (now - at).total_seconds()
    return max(age, 0.0) if age >= -SKEW_S else None
