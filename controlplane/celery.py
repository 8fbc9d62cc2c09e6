"""The Celery app, for instances with a broker (`REDIS_URL`); else the embedded runner keeps the same table.

celery -A controlplane.celery worker        celery -A controlplane.celery beat
"""

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("pointsman", include=["rollout_app.tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="pointsman.run")  # type: ignore[untyped-decorator]
def run(path: str) -> bool:
    """Do one job of the table, named by its path."""
    from controlplane.core import periodic

    return periodic.run_once(periodic.job(path))


def run_later(path: str) -> None:
    """A hint to do it now, by a worker. After ten seconds its turn has come anyway, so the message may go.

    Without a broker nobody is there to take it: another process, with the embedded runner in it, finds it by itself.
    """
    if app.conf.broker_url:
        run.apply_async(args=[path], expires=10)


@app.on_after_configure.connect  # type: ignore[untyped-decorator]
def _plan(sender: Celery, **kwargs: Any) -> None:
    from controlplane.core.periodic import TABLE

    sender.conf.beat_schedule = {
        # Expires: after a pause of the workers a job is done once, not once for each turn that was missed.
        job.path: {
            "task": run.name,
            "args": [job.path],
            "schedule": job.every,
            "options": {"expires": max(job.every, 1)},
        }
        for job in TABLE
    }


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_logging(**kwargs: Any) -> None:
    """Leave logging as the settings have it: Celery would put its own handlers in place."""
