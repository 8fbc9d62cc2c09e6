"""django-allauth's hooks. Every sign-in and every failure passes through here and becomes an audit entry."""

from typing import Any, cast

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse

from controlplane.access.sign_in import throttle
from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import PointsmanError, SignInFailed, TooMany


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Nobody can sign up: people are invited. django-axes counts attempts, not allauth's cache."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": "The name or the password is wrong.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        return throttle.address(request)

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        return

    def _rollback_login_failed_rl_usage(self) -> None:
        return

    def login(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        """Start a session together with its entry. Somebody may have been deactivated since they began to sign in."""
        ways = [
            record.get("type") or record["method"] for record in get_authentication_records(request, user)
        ]
        with transaction.atomic():
            # The person's row before the session's, as where sessions are ended; otherwise both could wait for ever.
            row = get_user_model().objects.select_for_update().filter(pk=user.pk, is_active=True)
            if is_active := bool(row.values_list("pk", flat=True)[:1]):
                super().login(request, user)
                log.record(
                    actor=Actor.of_user(user),
                    action="session.begin",
                    target=("user", str(user.pk)),
                    evidence={"by": list(dict.fromkeys(ways))},
                )
        if not is_active:  # outside of the transaction, so that an entry of the refusal stays
            raise ImmediateHttpResponse(self.respond_user_inactive(request, user))

    def logout(self, request: HttpRequest) -> None:
        user = request.user
        with transaction.atomic():
            super().logout(request)
            if user.is_authenticated:
                log.record(actor=Actor.of_user(user), action="session.end", target=("user", str(user.pk)))

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """Record a wrong password, or an attempt that was not checked because too many failed before."""
        error: PointsmanError = SignInFailed("The name or the password is wrong.")
        if getattr(request, "axes_locked_out", False):
            error = TooMany(
                "Too many sign-ins have failed; the password was not checked.",
                retry_after=int(settings.AXES_COOLOFF_TIME.total_seconds()),
            )
        refuse(request, error, _person_called(credentials.get("username")))

    def is_reauthentication_required(self, *, app: str) -> bool:
        """Return False for somebody who has no way to prove their identity here: they sign in only at the provider."""
        return bool(self.get_reauthentication_methods(context.request.user))

    def respond_user_inactive(self, request: HttpRequest, user: AbstractBaseUser) -> HttpResponse:
        refuse(request, SignInFailed("The account is deactivated."), user)
        return cast("HttpResponse", super().respond_user_inactive(request, user))


def refuse(request: HttpRequest, error: PointsmanError, user: AbstractBaseUser | None) -> None:
    """Record a failed sign-in. An unknown name is not stored: it may be a password typed into the wrong field."""
    where = throttle.address(request)
    log.record_refusal(
        error,
        actor=Actor("visitor", where, f"somebody at {where}"),
        action="session.begin",
        target=("user", "of an unknown name" if user is None else str(user.pk)),
    )


def refuse_unchecked_code(request: HttpRequest, form: BaseForm, user: AbstractBaseUser) -> None:
    """Record a code that was not checked, because too many before it were wrong. allauth reports the checked ones."""
    if form.has_error("code", "too_many_login_attempts"):
        told = "Too many codes were wrong; this one was not checked."
        refuse(request, TooMany(told, retry_after=300), user)


def _person_called(name: Any) -> AbstractBaseUser | None:
    return get_user_model().objects.filter(username__iexact=str(name)).first() if name else None
