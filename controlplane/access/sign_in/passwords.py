"""Sign-in with a password: django-allauth's check, and an update of hashes with outdated costs."""

from typing import Any

from allauth.account.auth_backends import AuthenticationBackend
from django.contrib.auth.models import User
from django.http import HttpRequest

from controlplane.access import actions
from controlplane.access.sign_in.hashing import is_outdated
from controlplane.core.actors import SYSTEM


class PasswordBackend(AuthenticationBackend):  # type: ignore[misc]  # allauth carries no types
    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        user: User | None = super().authenticate(request, **credentials)
        if user is not None and is_outdated(user.password):
            reason = "The same password, hashed with today's costs."
            actions.change_password(
                user, credentials["password"], actor=SYSTEM, reason=reason, action="password.rehash"
            )
        return user
