"""The first person of a new instance. There are no default passwords: it is generated, and shown once."""

import secrets

from django.contrib.auth.models import User
from django.db import transaction

from controlplane.access.actions import create_person
from controlplane.core.actors import SYSTEM

NAME = "admin"


def make_first_admin() -> str | None:
    """Create the superuser `admin` if there is no superuser yet. Return the password, or None."""
    with transaction.atomic():
        if User.objects.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        create_person(
            NAME,
            actor=SYSTEM,
            reason="The instance had no administrator.",
            password=password,
            superuser=True,
            action="user.first_admin",
        )
    return password
