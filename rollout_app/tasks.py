"""Background work: three lines each. Every task may be lost, doubled or late; the next one makes it right.

The plain functions serve the embedded runner. With a broker, `evaluate_later` hands rollouts to a worker, and
`controlplane.core.periodic.TABLE` names `sweep`.
"""

from collections.abc import Sequence

from django.db import close_old_connections

from controlplane.celery import app
from controlplane.core.bulk import chunks
from controlplane.core.context import request_context
from rollout_app.evaluation import reconcile


def evaluate(rollout_ids: Sequence[str]) -> list[str]:
    """Evaluate each, after a nudge. A connection that the database has closed meanwhile is opened again."""
    close_old_connections()
    with request_context(source="evaluation"):
        return reconcile.evaluate(rollout_ids)


def evaluate_later(rollout_ids: Sequence[str]) -> None:
    """The same, by workers. After ten seconds the sweep has done it, so the message expires.

    Without a broker nothing is sent: the process that has the embedded runner sweeps.
    """
    for some in chunks(rollout_ids, reconcile.BATCH) if app.conf.broker_url else ():
        evaluate_in_worker.apply_async(args=[list(some)], expires=10)


@app.task(name="pointsman.evaluate")  # type: ignore[untyped-decorator]
def evaluate_in_worker(rollout_ids: list[str]) -> list[str]:
    return evaluate(rollout_ids)


def sweep() -> dict[str, int]:
    """Evaluate everything that could move: finds what a lost nudge left, and what only time has changed."""
    return reconcile.sweep()
