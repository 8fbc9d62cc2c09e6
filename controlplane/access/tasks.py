"""Periodic jobs of access. See `controlplane.periodic`."""

from django.contrib.sessions.models import Session

from controlplane import clock
from controlplane.access import answers


def prune() -> None:
    """Forget old answers to idempotent requests, and sessions that have ended."""
    answers.prune()
    Session.objects.filter(expire_date__lt=clock.now()).delete()
