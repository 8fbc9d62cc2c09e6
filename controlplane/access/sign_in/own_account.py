"""Pages where people change their own account: password, authenticator app, recovery codes.

Each requires the password.
"""

from typing import Any

from allauth.account import views as account
from allauth.account.decorators import reauthentication_required
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as recovery
from allauth.mfa.totp import views as totp
from django import forms
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.utils.decorators import method_decorator
from django.views.generic import FormView

from controlplane.access.sign_in import company
from controlplane.access.sign_in.adapters import refuse_unchecked_code
from controlplane.access.sign_in.frames import Framed, Sheet
from controlplane.core.errors import Conflict

ACCOUNT = reverse_lazy("console:account")


class ChangePasswordView(Sheet, account.PasswordChangeView):  # type: ignore[misc]
    """A new password ends all other sessions of this person."""

    title = "Change your password"
    about = "You stay logged in here, and are logged out everywhere else."
    button = "Change password"
    change = "password.change"
    success_url = ACCOUNT


class ConfirmPasswordView(Sheet, account.ReauthenticateView):  # type: ignore[misc]
    template_name = "account/confirm.html"
    title = "Confirm that it is you"
    about = "This change requires your password."
    button = "Confirm"


class ConfirmCodeView(Sheet, mfa.ReauthenticateView):  # type: ignore[misc]
    template_name = "account/confirm.html"
    title = "Confirm that it is you"
    about = "This change requires a code from your authenticator app, or a recovery code."
    button = "Confirm"

    def form_invalid(self, form: forms.BaseForm) -> HttpResponse:
        user = self.request.user
        assert isinstance(user, User)  # noqa: S101 — the view requires a session
        refuse_unchecked_code(self.request, form, user)
        page: HttpResponse = super().form_invalid(form)
        return page


class TurnOnTotpView(Sheet, totp.ActivateTOTPView):  # type: ignore[misc]
    template_name = "account/totp.html"
    title = "Set up an authenticator app"
    button = "Turn on"
    change = "second_factor.add"
    evidence = {"kind": "totp"}


class TurnOffTotpView(Sheet, totp.DeactivateTOTPView):  # type: ignore[misc]
    title = "Turn the authenticator app off"
    about = (
        "Its codes stop working. Without another second factor, your password alone logs you in, and your "
        "recovery codes stop working."
    )
    button = "Turn off"
    danger = True
    change = "second_factor.remove"
    evidence = {"kind": "totp"}
    success_url = ACCOUNT


class RecoveryCodesView(Framed, recovery.ViewRecoveryCodesView):  # type: ignore[misc]
    template_name = "account/recovery_codes.html"
    title = "Recovery codes"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {"crumbs": [("Your account", ACCOUNT)]}


class NewRecoveryCodesView(Sheet, recovery.GenerateRecoveryCodesView):  # type: ignore[misc]
    title = "New recovery codes"
    about = "Your current codes stop working."
    button = "Create new codes"
    change = "second_factor.new_recovery_codes"


@login_required
@reauthentication_required(app="allauth.socialaccount")  # type: ignore[untyped-decorator]
def connect(request: HttpRequest) -> HttpResponse:
    """Redirect to the company's provider, to prove that an account there belongs to this person."""
    start = reverse("openid_connect_login", args=[company.PROVIDER])
    return redirect(f"{start}?process=connect")


class NothingToFill(forms.Form):
    """A form with only a button."""


@method_decorator(login_required, name="dispatch")
@method_decorator(reauthentication_required(app="allauth.socialaccount"), name="dispatch")
class DisconnectView(Sheet, FormView):  # type: ignore[misc,type-arg]
    form_class = NothingToFill
    title = "Disconnect your company's account"
    about = "From then on you can log in only with your password."
    button = "Disconnect"
    danger = True
    success_url = ACCOUNT

    def form_valid(self, form: forms.BaseForm) -> HttpResponse:
        user = self.request.user
        assert isinstance(user, User)  # noqa: S101 — the decorator asks for a session first
        try:
            company.disconnect(user)
        except Conflict as error:
            form.add_error(None, error.detail)
            return self.form_invalid(form)
        return super().form_valid(form)
