"""Periodic jobs of access. See `controlplane.core.schedule`."""

from celery import shared_task

from controlplane.access import idempotency
from controlplane.access.models import Session
from controlplane.core import clock


@shared_task(soft_time_limit=300, time_limit=330)
def prune() -> None:
    """Delete old answers to idempotent requests, and expired sessions."""
    idempotency.prune()
    Session.objects.filter(expire_date__lt=clock.now()).delete()
