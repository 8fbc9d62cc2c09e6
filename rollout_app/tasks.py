"""Background tasks. Any of them may be lost, run twice or run late; the next run makes up for it.

`controlplane.core.schedule.TABLE` lists the periodic ones. `evaluate` follows a nudge.
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
    """Evaluate every rollout that could move. Covers lost nudges and changes that only time brings."""
    return reconcile.sweep()


@shared_task(soft_time_limit=60, time_limit=75)
def evaluate(rollout_ids: Sequence[str]) -> list[str]:
    """Evaluate each rollout after a nudge. Reopens a connection that the database closed in the meantime."""
    close_old_connections()
    return reconcile.evaluate(rollout_ids)


def evaluate_later(rollout_ids: Sequence[str]) -> None:
    """Queue `evaluate` for workers. The message expires after ten seconds, because the sweep has run by then.

    Without a broker this does nothing: the process with the embedded runner does the sweep.
    """
    for some in chunks(rollout_ids, reconcile.BATCH) if current_app.conf.broker_url else ():
        evaluate.apply_async(args=[list(some)], expires=10)


@shared_task(soft_time_limit=60, time_limit=75)
def tell_held() -> int:
    """Send notifications about rollouts that are held for too long and stages that wait for an approval."""
    return held.tell()


@shared_task(soft_time_limit=60, time_limit=75)
def keep_mirror_budgets() -> int:
    """Stop mirrors whose budget for the day is spent."""
    return mirrors.keep_mirror_budgets()


@shared_task(soft_time_limit=600, time_limit=660)
def prune_outcomes() -> dict[str, int]:
    """Delete outcomes that are past their retention."""
    return store.prune()


@shared_task(soft_time_limit=300, time_limit=330)
def refresh_rollups() -> None:
    rollups.refresh()


@shared_task(soft_time_limit=600, time_limit=660)
def prune_rollups() -> None:
    rollups.prune()
