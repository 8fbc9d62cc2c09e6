"""The Celery app, for instances with a broker (`REDIS_URL`); else the embedded runner keeps the same table.

celery -A controlplane.celery worker --without-mingle --without-gossip        celery -A controlplane.celery beat

Each periodic job is one thin task in its app's `tasks.py`, with a time limit of its own; the table in
`controlplane.core.schedule` says how often. A task is a hint: it may be lost, doubled or late.
"""

import os
import time
from typing import Any

from celery import Celery, Task, signals

from controlplane.core.schedule import ENGINE, TABLE, job

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")


TURN = "pointsman_turn"  # a header of what beat sends
_ended_at: dict[str, float] = {}  # job → when its last run here ended, of `time.monotonic`
ENGINE_TASKS = (ENGINE, "rollout_app.tasks.evaluate")


class JobTask(Task):  # type: ignore[misc]
    """Whoever calls it, a worker or the embedded runner: what it logs and writes names it, and its end is noted.

    A turn that beat has sent is left out where one has just ended: after a pause of the workers they lie in the queue
    by the hundred. By this process's monotonic clock: Celery's `expires` compares beat's clock with the worker's, and
    a worker that was three seconds ahead threw every turn of the engine away.
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
    """Half an interval after the last: two beats may send, and their turns come as they like."""
    return _ended_at.get(path, float("-inf")) + job(path).every / 2


app = Celery("pointsman", task_cls=JobTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    turn.path: {"task": turn.path, "schedule": turn.every, "options": {"headers": {TURN: True}}}
    for turn in TABLE
}
app.set_default()  # in every thread: the tasks of `@shared_task` belong to it


def run_later(path: str) -> None:
    """A hint to do a job now, by a worker. After ten seconds its turn has come anyway, so the message may go.

    Without a broker nobody is there to take it: another process, with the embedded runner in it, finds it by itself.
    """
    if app.conf.broker_url:
        app.send_task(path, expires=10)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_logging(**kwargs: Any) -> None:
    """Leave logging as the settings have it: Celery would put its own handlers in place."""
