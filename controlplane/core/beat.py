"""Celery beat's schedule, kept by an interval and not by the date: a clock that was ahead leaves nothing waiting.

Celery notes the time at which each job is due, and of its last turn, also in a file. After a clock that was a day ahead
is put right, those lie in the future: beat would send nothing for a day, and the engine stand still.
"""

import time
from typing import Any

from celery.beat import PersistentScheduler

PUT_BACK_S = 1.0  # less is a clock that is kept in step


class Scheduler(PersistentScheduler):  # type: ignore[misc]
    """Looks at each tick whether the clock was put back, and at the start whether it was meanwhile."""

    def setup_schedule(self) -> None:
        super().setup_schedule()
        self._clock_less_monotonic = _clock_less_monotonic()
        self._forget_the_future()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; the seconds until the next look."""
        was, self._clock_less_monotonic = self._clock_less_monotonic, _clock_less_monotonic()
        if self._clock_less_monotonic < was - PUT_BACK_S:
            self._forget_the_future()
        seconds: float = super().tick(*args, **kwargs)
        return seconds

    def _forget_the_future(self) -> None:
        """Jobs whose last turn has not come yet had it now; when each is due is worked out anew."""
        for entry in self.schedule.values():
            entry.last_run_at = min(entry.last_run_at, entry.default_now())
        self._heap = None


def _clock_less_monotonic() -> float:
    return time.time() - time.monotonic()
