"""The embedded runner: runs the periodic jobs (`schedule.TABLE`) when there is no Celery.

It calls the same tasks that workers would run. Each job has its own thread, so a slow clean-up never delays a rollback.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from django.db import close_old_connections
from django.utils.module_loading import import_string

from controlplane.core.patience import LONG_S, SHORT_S
from controlplane.core.schedule import ENGINE, TABLE, Job
from controlplane.core.threads import LoopThread

logger = logging.getLogger(__name__)
Loop = Callable[[threading.Event], object]

SOON_S = 1.0  # every job runs first this long after the start
REST_S = 0.05  # pause after a job that took longer than its interval


def run_once(job: Job) -> bool:
    """Run a job and return whether it succeeded. An error is logged, and the next turn tries again."""
    # Otherwise a connection that the database has closed would make every later turn fail.
    close_old_connections()
    try:
        import_string(job.path)()
    except Exception:
        logger.exception("the job %s failed; it runs again in %g s", job.path, job.every)
        return False
    finally:
        close_old_connections()
    return True


class Runner:
    """Runs a table of jobs until stopped. Call `start` once; `stop` lets running jobs finish.

    `watch` holds loops that wait for an event instead of a time. Each receives the event that ends it.
    """

    def __init__(self, table: Sequence[Job] = TABLE, watch: Sequence[Loop] = ()) -> None:
        for job in table:
            import_string(job.path)  # fail at startup if a path is wrong
        self._threads: list[LoopThread] = [_JobThread(job) for job in table]
        self._threads += [_WatchThread(loop) for loop in watch]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        logger.info("started %d background jobs", len(self._threads))

    def stop(self, timeout: float = 10) -> bool:
        """Start no more jobs and wait. Return False if a job was still running after `timeout` seconds."""
        for thread in self._threads:
            thread.request_stop()
        end = time.monotonic() + timeout
        ended = [thread.stop(max(0, end - time.monotonic())) for thread in self._threads]
        return all(ended)


class _JobThread(LoopThread):
    """Runs one job: soon after the start, then at its interval. A turn that takes longer skips the next."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"runner:{job.path}")
        # The other jobs prune, which may take a while.
        self.patience_s = SHORT_S if job.path == ENGINE else LONG_S
        self._job = job
        self._began = False

    def round(self) -> float:
        if not self._began:
            self._began = True
            return min(self._job.every, SOON_S)
        began = time.monotonic()
        run_once(self._job)
        return max(self._job.every - (time.monotonic() - began), REST_S)


class _WatchThread(LoopThread):
    """Runs a loop that ends only on request. If it fails, it is started again."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(f"runner:{getattr(loop, '__name__', 'watch')}")
        self._loop = loop

    def round(self) -> float:
        self._loop(self._ending)
        return self.retry_s
