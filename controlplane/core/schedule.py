"""The table of periodic jobs: `celery beat` reads it where there is a broker, `periodic.Runner` where there is none.

Each job may be lost, doubled or late: it looks at the database and does what is due.

No model is imported here. Beat reads the table before Django's apps are loaded, and Celery logs an error of its
configuration nowhere: beat would start, and send nothing for ever.
"""

from dataclasses import dataclass

ENGINE = "rollout_app.tasks.sweep"


@dataclass(frozen=True, slots=True)
class Job:
    """`path` is the dotted path of a task without arguments; it is due `every` so many seconds."""

    path: str
    every: float


TABLE: tuple[Job, ...] = (
    Job(ENGINE, every=2),
    Job("policies_app.tasks.publish", every=2),
    Job("controlplane.audit.tasks.checkpoint", every=60),
    Job("controlplane.notifications.tasks.deliver", every=2),
    Job("policies_app.tasks.tell_rejected", every=10),
    Job("rollout_app.tasks.tell_held", every=30),
    Job("rollout_app.tasks.keep_mirror_budgets", every=30),
    Job("controlplane.notifications.tasks.prune", every=3600),
    Job("controlplane.access.tasks.prune", every=3600),
    Job("rollout_app.tasks.prune_outcomes", every=3600),
    Job("rollout_app.tasks.refresh_rollups", every=30),
    Job("rollout_app.tasks.prune_rollups", every=3600),
    Job("policies_app.tasks.prune_routers", every=3600),
)


def job(path: str) -> Job:
    """The table's job of this path, or `KeyError`."""
    return {job.path: job for job in TABLE}[path]
