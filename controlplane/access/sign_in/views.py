"""Pages of people who are not signed in yet, and of those who leave. Their names are those that allauth asks for.

They lie below /console/, before the site's own: the site's `login` and `logout` have the same addresses.
"""

from typing import Any

from allauth.account import views as account
from allauth.account.forms import LoginForm
from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.urls import URLPattern, path
from unfold.widgets import BASE_INPUT_CLASSES


def styled(form: forms.Form) -> None:
    """Give the fields of a form that is not ours the console's look."""
    for field in form.fields.values():
        field.widget.attrs["class"] = " ".join(BASE_INPUT_CLASSES)
        field.widget.attrs.pop("placeholder", None)
        if not field.label_suffix:
            field.label_suffix = ""


class SignInForm(LoginForm):  # type: ignore[misc]  # allauth carries no types
    """Name and password. The name's field is called `username`, as password managers expect."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = ""
        styled(self)

    def add_prefix(self, field_name: str) -> str:
        return "username" if field_name == "login" else field_name


class Framed:
    """A view of allauth's with what the console's frame needs."""

    request: HttpRequest

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {**admin.site.each_context(self.request), **super().get_context_data(**kwargs)}  # type: ignore[misc]


class SignInView(Framed, account.LoginView):  # type: ignore[misc]
    template_name = "console/login.html"


class SignOutView(Framed, account.LogoutView):  # type: ignore[misc]
    """A form asks first: a link from elsewhere logs nobody out."""


class ClosedAccountView(Framed, account.AccountInactiveView):  # type: ignore[misc]
    """The right password of somebody who was deactivated."""


urlpatterns: list[URLPattern] = [
    path("login/", SignInView.as_view(), name="account_login"),
    path("logout/", SignOutView.as_view(), name="account_logout"),
    path("account/inactive/", ClosedAccountView.as_view(), name="account_inactive"),
]
