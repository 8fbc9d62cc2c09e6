"""The first person of a new instance. Nothing has a default password: it is generated, and shown once."""

import secrets

from django.contrib.auth.models import User
from django.db import transaction

from controlplane.audit import log
from controlplane.core.actors import SYSTEM

NAME = "admin"


def make_first_admin() -> str | None:
    """Make the superuser `admin` where there is no superuser yet; returns the password, else None."""
    with transaction.atomic():
        if User.objects.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        user = User.objects.create_superuser(NAME, password=password)
        log.record(
            actor=SYSTEM,
            action="user.first_admin",
            target=("user", user.get_username()),
            reason="The instance had no administrator.",
        )
    return password
