"""The table of periodic jobs, and the runner that keeps it where there is no Celery.

Each job may be lost, doubled or late: it looks at the database and does what is due. With a broker, `celery
beat` reads the table. Without, `Runner` calls the very same functions, each job in a thread of its own, so
that a slow clean-up never keeps a rollback waiting.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import close_old_connections, connections
from django.utils.module_loading import import_string

from controlplane.core.context import request_context

logger = logging.getLogger(__name__)
Loop = Callable[[threading.Event], object]


@dataclass(frozen=True, slots=True)
class Job:
    """`path` is the dotted path of a function without arguments; it is due `every` so many seconds."""

    path: str
    every: float


TABLE: tuple[Job, ...] = (
    Job("rollout_app.tasks.sweep", every=2),
    Job("policies_app.snapshots.publish.sweep", every=2),
    Job("controlplane.audit.tasks.checkpoint", every=60),
    Job("controlplane.access.tasks.prune", every=3600),
    Job("rollout_app.outcomes.store.prune", every=3600),
    Job("rollout_app.review.rollups.refresh", every=30),
    Job("rollout_app.review.rollups.prune", every=3600),
    Job("policies_app.fleet.writer.prune", every=3600),
)


def job(path: str) -> Job:
    """The table's job of this path; `KeyError` for any other: a message on a broker runs nothing else."""
    return {job.path: job for job in TABLE}[path]


def run_once(job: Job) -> bool:
    """Call a job's function; an error is logged, and the next turn tries again."""
    # A connection that the database has closed meanwhile must not fail every turn from then on.
    close_old_connections()
    try:
        with request_context(source=f"job {job.path}"):
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
        self._loops: list[tuple[str, Loop]] = [(job.path, self._turns(job)) for job in table]
        self._loops += [(getattr(loop, "__name__", "watch"), loop) for loop in watch]
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for name, loop in self._loops:
            thread = threading.Thread(target=self._run, args=(loop,), name=f"runner:{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        logger.info("the embedded runner runs %d jobs", len(self._loops))

    def stop(self, timeout: float = 10) -> bool:
        """Start nothing more and wait; False when a job was still at work after `timeout` seconds."""
        self._stopping.set()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, loop: Loop) -> None:
        try:
            loop(self._stopping)
        finally:
            connections.close_all()

    @staticmethod
    def _turns(job: Job) -> Loop:
        def turns(stopping: threading.Event) -> None:
            delay = min(
                job.every, 1
            )  # soon after the start, then in step; a job that took longer skips a turn
            while not stopping.wait(delay):
                began = time.monotonic()
                run_once(job)
                delay = max(job.every - (time.monotonic() - began), 0.05)

        return turns
