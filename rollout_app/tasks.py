"""Background work: three lines each. Every task may be lost, doubled or late; the next one makes it right.

The plain functions serve the embedded runner, the tasks Celery; `controlplane.periodic.TABLE` names them.
"""

from rollout_app import reconcile


def look(rollout_id: str) -> str:
    """One look, after a nudge."""
    return reconcile.look_safely(rollout_id)


def sweep() -> dict[str, int]:
    """A look at everything that could move: finds what a lost nudge left, and what only time has changed."""
    return reconcile.sweep()
