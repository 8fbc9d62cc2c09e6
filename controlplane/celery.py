"""The Celery app, for instances with a broker (`REDIS_URL`); else the embedded runner keeps the same table.

celery -A controlplane.celery worker --without-mingle --without-gossip        celery -A controlplane.celery beat

Each periodic job is one thin task in its app's `tasks.py`, with a time limit of its own; the table in
`controlplane.core.schedule` says how often. A task is a hint: it may be lost, doubled or late.
"""

import os
from typing import Any

from celery import Celery, Task, signals

from controlplane.core.schedule import ENGINE, TABLE

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")


ENGINE_TASKS = (ENGINE, "rollout_app.tasks.evaluate")


class JobTask(Task):  # type: ignore[misc]
    """Whoever calls it, a worker or the embedded runner: what it logs and writes names it, and its end is noted."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from controlplane.core import heartbeats, patience
        from controlplane.core.context import request_context

        short = self.name in ENGINE_TASKS
        with (
            request_context(source=f"job {self.name}"),
            patience.patience(patience.SHORT_S if short else patience.LONG_S),
        ):
            done = super().__call__(*args, **kwargs)
            if any(job.path == self.name for job in TABLE):
                heartbeats.beat(self.name)
        return done


app = Celery("pointsman", task_cls=JobTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    # Expires: after a pause of the workers a job is done once, not once for each turn that was missed.
    job.path: {"task": job.path, "schedule": job.every, "options": {"expires": max(job.every, 1)}}
    for job in TABLE
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
