"""The runner that keeps the table of periodic jobs (`schedule.TABLE`) where there is no Celery.

It calls the very tasks that workers would run, each job in a thread of its own, so that a slow clean-up never
keeps a rollback waiting.
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

SOON_S = 1.0  # after the start every job has its first turn
REST_S = 0.05  # between two turns of a job that takes longer than its interval


def run_once(job: Job) -> bool:
    """Do a job; an error is logged, and the next turn tries again."""
    # A connection that the database has closed meanwhile must not fail every turn from then on.
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
    """Runs a table until it is stopped. `start` is called once; `stop` lets running jobs finish.

    `watch` are loops of another kind, that wait for something: each is given the event that ends it.
    """

    def __init__(self, table: Sequence[Job] = TABLE, watch: Sequence[Loop] = ()) -> None:
        for job in table:
            import_string(job.path)  # a wrong path fails here, at the start
        self._threads: list[LoopThread] = [_JobThread(job) for job in table]
        self._threads += [_WatchThread(loop) for loop in watch]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        logger.info("the embedded runner runs %d jobs", len(self._threads))

    def stop(self, timeout: float = 10) -> bool:
        """Start nothing more and wait; False when a job was still at work after `timeout` seconds."""
        for thread in self._threads:
            thread.request_stop()
        end = time.monotonic() + timeout
        ended = [thread.stop(max(0, end - time.monotonic())) for thread in self._threads]
        return all(ended)


class _JobThread(LoopThread):
    """A job's turns: soon after the start, then in step; a turn that took longer skips the next."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"runner:{job.path}")
        self.patience_s = SHORT_S if job.path == ENGINE else LONG_S  # others prune, and may take a while
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
    """A loop that ends only when it is asked to; one that fails begins anew."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(f"runner:{getattr(loop, '__name__', 'watch')}")
        self._loop = loop

    def round(self) -> float:
        self._loop(self._ending)
        return self.retry_s
