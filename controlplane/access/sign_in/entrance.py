"""Pages for people who are signing in or out.

Their URLs are below /console/ and come before those of the admin site, whose `login` and `logout` are the same.
"""

from typing import Any

from allauth.account import views as account
from allauth.account.forms import LoginForm
from allauth.mfa import signals
from allauth.mfa.base import views as mfa
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib.auth.models import User
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from controlplane.access.sign_in import company, passkeys
from controlplane.access.sign_in.adapters import refuse, refuse_unchecked_code
from controlplane.access.sign_in.frames import Framed
from controlplane.core.errors import SignInFailed


class SignInForm(LoginForm):  # type: ignore[misc]  # allauth carries no types
    """Name and password. The field of the name is called `username`, because password managers expect it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = ""

    def add_prefix(self, field_name: str) -> str:
        return "username" if field_name == "login" else field_name


class SignInView(Framed, account.LoginView):  # type: ignore[misc]
    template_name = "console/login.html"
    title = "Log in"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {"company": company.name()}


class SecondFactorView(Framed, mfa.AuthenticateView):  # type: ignore[misc]
    """Comes after the password: a passkey, a code from the authenticator app, or a recovery code."""

    title = "Second factor"
    webauthn_form_class = passkeys.SecondFactorForm

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        found = super().get_context_data(**kwargs)
        types = set(Authenticator.objects.filter(user=self.stage.login.user).values_list("type", flat=True))
        has = {"has_passkey": "webauthn" in types, "has_app": "totp" in types}
        return {**found, **has, **passkeys.for_the_script(found)}

    def form_invalid(self, form: forms.BaseForm) -> HttpResponse:
        if form is self.webauthn_form:
            passkeys.failed(self.request, self.stage.login.user)
        else:
            refuse_unchecked_code(self.request, form, self.stage.login.user)
        page: HttpResponse = super().form_invalid(form)
        return page


class SignOutView(Framed, account.LogoutView):  # type: ignore[misc]
    """Requires a form, so that a link from elsewhere cannot log anybody out."""

    title = "Log out"


class ClosedAccountView(Framed, account.AccountInactiveView):  # type: ignore[misc]
    """Shown after the correct password of a deactivated person."""

    title = "Account closed"


@receiver(signals.authentication_failed)
def record_wrong_code(request: HttpRequest, user: User, **kwargs: Any) -> None:
    """Record a wrong code after a correct password."""
    refuse(request, SignInFailed("The code of the second factor is wrong."), user)
