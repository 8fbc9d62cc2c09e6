"""The table of periodic jobs, read by `celery beat` when there is a broker and by `periodic.Runner` otherwise.

Every job may be lost, duplicated or late: it checks the database and does what is due.

Do not import models here. Beat reads the table before Django's apps are loaded, and Celery logs no error in its
configuration: beat would start and never send anything.
"""

from dataclasses import dataclass

ENGINE = "rollout_app.tasks.sweep"


@dataclass(frozen=True, slots=True)
class Job:
    """`path` is the dotted path of a task without arguments; it is due every `every` seconds."""

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
    """Return the job with this path, or raise `KeyError`."""
    return {job.path: job for job in TABLE}[path]
