"""Background work: three lines each. Every task may be lost, doubled or late; the next one makes it right.

The plain functions serve the embedded runner. With a broker, `look_later` hands a look to a worker, and
`controlplane.periodic.TABLE` names `sweep`.
"""

from django.db import close_old_connections

from controlplane.audit.context import request_context
from controlplane.celery import app
from rollout_app import reconcile


def look(rollout_id: str) -> str:
    """One look, after a nudge. A connection that the database closed meanwhile is made anew."""
    close_old_connections()
    with request_context(source="look"):
        return reconcile.look_safely(rollout_id)


def look_later(rollout_id: str) -> None:
    """The same, by a worker. After ten seconds the sweep has done it, so the message may go."""
    looked_at_by_a_worker.apply_async(args=[rollout_id], expires=10)


@app.task(name="pointsman.look")  # type: ignore[untyped-decorator]
def looked_at_by_a_worker(rollout_id: str) -> str:
    return look(rollout_id)


def sweep() -> dict[str, int]:
    """A look at everything that could move: finds what a lost nudge left, and what only time has changed."""
    return reconcile.sweep()
