"""Periodic jobs of the policies. See `controlplane.core.schedule`."""

from celery import shared_task

from policies_app.fleet import rejections, writer
from policies_app.snapshots import publish as publishing


@shared_task(soft_time_limit=60, time_limit=75)
def publish() -> int:
    """Publish snapshots that the bucket does not have yet."""
    return publishing.sweep()


@shared_task(soft_time_limit=60, time_limit=75)
def tell_rejected() -> int:
    """Report served documents that routers refuse."""
    return rejections.tell()


@shared_task(soft_time_limit=300, time_limit=330)
def prune_routers() -> int:
    """Delete routers not heard from for a week."""
    return writer.prune()
