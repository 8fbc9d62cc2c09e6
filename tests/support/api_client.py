"""People who use the admin API, and their requests."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from controlplane.access.models import Membership, Role


def person(name: str, *roles: Role, environment: str = "") -> Client:
    user = User.objects.create_user(name)
    for role in roles:
        Membership.objects.create(user=user, role=role, environment=environment)
    client = Client()
    client.force_login(user)
    return client


def send(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    call = getattr(client, method)
    return call(f"/api/v1/{path}", body, content_type="application/json", headers=headers)
