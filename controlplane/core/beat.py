"""Celery beat's schedule, which also works after the clock was set back.

Celery keeps the due time of each job and the time of its last run, also in a file. If the clock was a day ahead and is
corrected, those times lie in the future: beat would send nothing for a day, and the engine would stop.
"""

import time
from typing import Any

from celery.beat import PersistentScheduler

PUT_BACK_S = 1.0  # smaller steps are normal clock synchronisation


class Scheduler(PersistentScheduler):  # type: ignore[misc]
    """Detects at each tick, and at startup, that the clock was set back."""

    def setup_schedule(self) -> None:
        super().setup_schedule()
        self._clock_less_monotonic = _clock_less_monotonic()
        self._forget_the_future()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due. Return the seconds until the next tick."""
        was, self._clock_less_monotonic = self._clock_less_monotonic, _clock_less_monotonic()
        if self._clock_less_monotonic < was - PUT_BACK_S:
            self._forget_the_future()
        seconds: float = super().tick(*args, **kwargs)
        return seconds

    def _forget_the_future(self) -> None:
        """Set last-run times that lie in the future to now, and recompute when each job is due."""
        for entry in self.schedule.values():
            entry.last_run_at = min(entry.last_run_at, entry.default_now())
        self._heap = None


def _clock_less_monotonic() -> float:
    return time.time() - time.monotonic()
