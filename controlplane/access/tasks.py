"""Periodic jobs of access. See `controlplane.core.periodic`."""

from django.contrib.sessions.models import Session

from controlplane.access import idempotency
from controlplane.core import clock


def prune() -> None:
    """Forget old answers to idempotent requests, and sessions that have ended."""
    idempotency.prune()
    Session.objects.filter(expire_date__lt=clock.now()).delete()
