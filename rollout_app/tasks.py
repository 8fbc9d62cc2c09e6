"""Background work: three lines each. Every task may be lost, doubled or late; the next one makes it right.

The plain functions serve the embedded runner. With a broker, `look_later` hands a look to a worker, and
`controlplane.core.periodic.TABLE` names `sweep`.
"""

from collections.abc import Sequence

from django.db import close_old_connections

from controlplane.celery import app
from controlplane.core.bulk import chunks
from controlplane.core.context import request_context
from rollout_app.evaluation import reconcile


def look(rollout_ids: Sequence[str]) -> list[str]:
    """A look at each, after a nudge. A connection that the database closed meanwhile is made anew."""
    close_old_connections()
    with request_context(source="look"):
        return reconcile.look(rollout_ids)


def look_later(rollout_ids: Sequence[str]) -> None:
    """The same, by workers. After ten seconds the sweep has done it, so the message may go.

    Without a broker nobody is there to take it: the process that has the embedded runner in it sweeps.
    """
    for some in chunks(rollout_ids, reconcile.BATCH) if app.conf.broker_url else ():
        looked_at_by_a_worker.apply_async(args=[list(some)], expires=10)


@app.task(name="pointsman.look")  # type: ignore[untyped-decorator]
def looked_at_by_a_worker(rollout_ids: list[str]) -> list[str]:
    return look(rollout_ids)


def sweep() -> dict[str, int]:
    """A look at everything that could move: finds what a lost nudge left, and what only time has changed."""
    return reconcile.sweep()
