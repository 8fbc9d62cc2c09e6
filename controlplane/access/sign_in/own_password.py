"""The form for a new password."""

from typing import cast

from allauth.account import forms as account
from allauth.account.adapter import get_adapter


class ChangePasswordForm(account.ChangePasswordForm):  # type: ignore[misc]  # allauth carries no types
    """Checks the current password like a sign-in: a wrong one is counted and recorded in the audit log."""

    def clean_oldpassword(self) -> str:
        typed = cast("str", self.cleaned_data["oldpassword"])
        if not get_adapter().reauthenticate(self.user, typed):
            raise get_adapter().validation_error("enter_current_password")
        return typed
