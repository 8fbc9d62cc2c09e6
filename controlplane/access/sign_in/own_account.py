"""What people do to their own account: password, authenticator app, recovery codes. Each asks for the password."""

from typing import Any

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as recovery
from allauth.mfa.totp import views as totp
from django.urls import reverse_lazy

from controlplane.access.sign_in.frames import Framed, Sheet

ACCOUNT = reverse_lazy("console:account")


class ChangePasswordView(Sheet, account.PasswordChangeView):  # type: ignore[misc]
    """The new password ends every other session of this person."""

    title = "Change your password"
    about = "You stay logged in here, and are logged out everywhere else."
    button = "Change password"
    change = "password.change"
    success_url = ACCOUNT


class ConfirmPasswordView(Sheet, account.ReauthenticateView):  # type: ignore[misc]
    title = "Confirm that it is you"
    about = "Your password again, before this change."
    button = "Confirm"


class ConfirmCodeView(Sheet, mfa.ReauthenticateView):  # type: ignore[misc]
    title = "Confirm that it is you"
    about = "A code of your authenticator app, before this change."
    button = "Confirm"


class TurnOnTotpView(Sheet, totp.ActivateTOTPView):  # type: ignore[misc]
    template_name = "account/totp.html"
    title = "Set up an authenticator app"
    button = "Turn on"
    change = "second_factor.add"
    evidence = {"kind": "totp"}


class TurnOffTotpView(Sheet, totp.DeactivateTOTPView):  # type: ignore[misc]
    title = "Turn the authenticator app off"
    about = "Your password alone will log you in. The recovery codes end, too."
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
    about = "The codes that you have now end."
    button = "Make new codes"
    change = "second_factor.new_recovery_codes"
