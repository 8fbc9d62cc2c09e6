"""Periodic jobs of the notifications. See `controlplane.core.schedule`."""

from celery import shared_task

from controlplane.notifications import delivery, outbox


# A pass, then the longest mail, then the longest webhook that was begun meanwhile.
@shared_task(soft_time_limit=90, time_limit=105)
def deliver() -> int:
    """Attempt the deliveries that are due."""
    return delivery.run_due()


@shared_task(soft_time_limit=300, time_limit=330)
def prune() -> int:
    return outbox.prune()
