"""The console's layout and styles for django-allauth's views."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.widgets import BASE_INPUT_CLASSES

from controlplane.access.actions import account_change
from controlplane.core.actors import Actor


def styled(form: forms.BaseForm) -> None:
    """Style the fields of a third-party form like those of the console."""
    for field in form.fields.values():
        field.widget.attrs["class"] = " ".join(BASE_INPUT_CLASSES)
        field.widget.attrs.pop("placeholder", None)


class Framed:
    """A view inside the console's frame, with its form styled like those of the console."""

    request: HttpRequest
    title = ""
    http_method_names: ClassVar[list[str]] = ["get", "post", "head", "options"]

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        found = super().get_context_data(**kwargs)  # type: ignore[misc]
        if found.get("form") is not None:
            styled(found["form"])
        return {**admin.site.each_context(self.request), "title": self.title, **found}


class Sheet(Framed):
    """A console page with a form that makes one change to one's own account.

    `change`, if set, is the audited action: the entry is written in the change's transaction.
    """

    template_name = "console/sheet.html"
    about = ""
    button = ""
    danger = False
    change = ""
    evidence: dict[str, Any] | None = None

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        account = reverse("console:account")
        return super().get_context_data(**kwargs) | {
            "heading": self.title,
            "about": self.about,
            "button": self.button,
            "danger": self.danger,
            "back": account,
            "action": self.request.get_full_path(),  # keeps where to go afterwards
            "crumbs": [("Your account", account)],
        }

    def form_valid(self, form: forms.BaseForm) -> HttpResponse:
        if not self.change:
            return self.changed(form)
        user = self.request.user
        assert isinstance(user, User)  # noqa: S101 — these views require a session
        with account_change(user, self.change, actor=Actor.of_user(user), evidence=self.evidence):
            return self.changed(form)

    def changed(self, form: forms.BaseForm) -> HttpResponse:
        """Make the change, inside the transaction that writes the entry."""
        response: HttpResponse = super().form_valid(form)  # type: ignore[misc]
        return response
