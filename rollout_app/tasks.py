"""Background work: three lines each. Every task may be lost, doubled or late; the next one makes it right.

`sweep` and what else is in `controlplane.core.schedule.TABLE` runs by itself. `evaluate` follows a nudge.
"""

from collections.abc import Sequence

from celery import current_app, shared_task
from django.db import close_old_connections

from controlplane.core.bulk import chunks
from rollout_app.actions import mirrors
from rollout_app.evaluation import held, reconcile
from rollout_app.outcomes import store
from rollout_app.review import rollups


@shared_task(soft_time_limit=300, time_limit=330)
def sweep() -> dict[str, int]:
    """Evaluate everything that could move: finds what a lost nudge left, and what only time has changed."""
    return reconcile.sweep()


@shared_task(soft_time_limit=60, time_limit=75)
def evaluate(rollout_ids: Sequence[str]) -> list[str]:
    """Evaluate each, after a nudge. A connection that the database has closed meanwhile is opened again."""
    close_old_connections()
    return reconcile.evaluate(rollout_ids)


def evaluate_later(rollout_ids: Sequence[str]) -> None:
    """The same, by workers. After ten seconds the sweep has done it, so the message expires.

    Without a broker nothing is sent: the process that has the embedded runner sweeps.
    """
    for some in chunks(rollout_ids, reconcile.BATCH) if current_app.conf.broker_url else ():
        evaluate.apply_async(args=[list(some)], expires=10)


@shared_task(soft_time_limit=60, time_limit=75)
def tell_held() -> int:
    """Tell of rollouts that stay where they are for too long, and of stages that wait for an approval."""
    return held.tell()


@shared_task(soft_time_limit=60, time_limit=75)
def keep_mirror_budgets() -> int:
    """Stop mirrors whose budget of the day is spent."""
    return mirrors.keep_mirror_budgets()


@shared_task(soft_time_limit=600, time_limit=660)
def prune_outcomes() -> dict[str, int]:
    """Let go of outcomes that are older than they are kept for."""
    return store.prune()


@shared_task(soft_time_limit=300, time_limit=330)
def refresh_rollups() -> None:
    rollups.refresh()


@shared_task(soft_time_limit=600, time_limit=660)
def prune_rollups() -> None:
    rollups.prune()
