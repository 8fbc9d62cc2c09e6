"""Periodic jobs of the audit log. See `controlplane.core.schedule`."""

from celery import shared_task

from controlplane.audit import checkpoints, refusals
from controlplane.audit.management import key_changes


@shared_task(soft_time_limit=30, time_limit=40)
def checkpoint() -> None:
    refusals.fold_old()
    key_changes.notice()  # in case the check at startup failed, or keys changed since
    checkpoints.make()
