"""The Celery app, used when there is a broker (`REDIS_URL`). Otherwise the embedded runner runs the same jobs.

celery -A controlplane.celery worker --without-mingle --without-gossip        celery -A controlplane.celery beat

Each periodic job is one thin task in its app's `tasks.py`, with its own time limit. The table in
`controlplane.core.schedule` sets the intervals. A task message is only a hint: it may be lost, duplicated or late.
"""

import os
import sys
import time
from typing import Any

from celery import Celery, Task, signals
from django.conf import settings

from controlplane.core.program import settings_refused
from controlplane.core.schedule import ENGINE, TABLE, job

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
with settings_refused():
    _ = settings.DEBUG  # the first access loads them


TURN = "pointsman_turn"  # header of the messages that beat sends
_ended_at: dict[str, float] = {}  # job → `time.monotonic()` when its last run in this process ended
ENGINE_TASKS = (ENGINE, "rollout_app.tasks.evaluate")


class JobTask(Task):  # type: ignore[misc]
    """Base class of all tasks: tags log lines and audit entries with the job's name, and records when it ended.

    A turn sent by beat is skipped if the job ended less than half an interval ago: after the workers pause, hundreds of
    turns wait in the queue. The age is measured with this process's monotonic clock. Celery's `expires` compares beat's
    clock with the worker's, and a worker three seconds ahead dropped every turn of the engine.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.get(TURN) and time.monotonic() < _next_turn_at(self.name):
            return None
        try:
            return self._do(*args, **kwargs)
        finally:
            _ended_at[self.name] = time.monotonic()

    def _do(self, *args: Any, **kwargs: Any) -> Any:
        from controlplane.core import heartbeats, patience
        from controlplane.core.context import request_context

        short = self.name in ENGINE_TASKS
        with (
            request_context(source=f"job {self.name}"),
            patience.patience(patience.SHORT_S if short else patience.LONG_S),
        ):
            done = super().__call__(*args, **kwargs)
            if any(one.path == self.name for one in TABLE):
                heartbeats.beat(self.name)
        return done


def _next_turn_at(path: str) -> float:
    """Return the earliest time of the next turn: half an interval after the last, because two beats may be sending."""
    return _ended_at.get(path, float("-inf")) + job(path).every / 2


app = Celery("pointsman", task_cls=JobTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    turn.path: {"task": turn.path, "schedule": turn.every, "options": {"headers": {TURN: True}}}
    for turn in TABLE
}
app.set_default()  # for all threads: `@shared_task` binds to this app


def run_later(path: str) -> None:
    """Ask a worker to run a job now. The message expires after ten seconds: by then the job has had its regular turn.

    Without a broker this does nothing: the process with the embedded runner finds the work by itself.
    """
    if app.conf.broker_url:
        app.send_task(path, expires=10)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_logging(**kwargs: Any) -> None:
    """Keep the logging configured in the settings. Connecting this signal stops Celery from installing its own
    handlers."""


@signals.worker_init.connect  # type: ignore[untyped-decorator]
@signals.beat_init.connect  # type: ignore[untyped-decorator]
def _refuse_to_start(**kwargs: Any) -> None:
    """Refuse what `serve` refuses, with the same sentence. Celery ignores what the system checks find."""
    from django.core.management.base import BaseCommand, CommandError
    from django.db import connections

    from controlplane.core import tables

    try:
        BaseCommand().check()
        tables.refuse_unfit()
    except CommandError as refusal:
        sys.exit(str(refusal))
    finally:
        connections.close_all()
