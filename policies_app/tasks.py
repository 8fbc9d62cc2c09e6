"""Periodic jobs of what is served. See `controlplane.core.schedule`."""

from celery import shared_task

from policies_app.fleet import rejections, writer
from policies_app.snapshots import publish as publishing


@shared_task(soft_time_limit=60, time_limit=75)
def publish() -> int:
    """Put into the bucket what it does not hold yet."""
    return publishing.sweep()


@shared_task(soft_time_limit=60, time_limit=75)
def tell_rejected() -> int:
    """Tell of documents that are served and that routers refuse."""
    return rejections.tell()


@shared_task(soft_time_limit=300, time_limit=330)
def prune_routers() -> int:
    """Forget routers that have not been heard of for a week."""
    return writer.prune()
