"""Pages to add a model to the catalogue by hand, and to edit one."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.access.models import Role
from controlplane.web.pages import attempt, console_view, done, must, page, status_of
from policies_app import actions
from policies_app.console.setup_forms import CatalogueModelForm
from policies_app.models import Model
from policies_app.selectors import model_for


@console_view("GET", "POST")
def new_model(request: HttpRequest) -> HttpResponse:
    must(request, Role.ADMIN, "")
    form = CatalogueModelForm(request.POST or None, initial={"enabled": True})
    if model := attempt(request, form, _add):
        return done(request, f"{model.name} was added to the catalogue.", to=_listed())
    return _form_page(request, form, "New model", "Add it")


def _add(*, expected: None, **values: Any) -> Model:
    return actions.add_model(**values)


@console_view("GET", "POST")
def edit_model(request: HttpRequest, name: str) -> HttpResponse:
    must(request, Role.ADMIN, "")
    model = model_for(name)
    form = CatalogueModelForm(request.POST or None, instance=model)
    if edited := attempt(request, form, _edit, form):
        return done(
            request, f"{edited.name} is saved. A changed price reaches routers at once.", to=_listed()
        )
    history = model.price_history.all()[:10]
    return _form_page(request, form, f"Edit {name}", "Save", history=history)


def _edit(form: CatalogueModelForm, *, actor: Any, expected: int, reason: str, **_: Any) -> Model:
    return actions.edit_model(form.instance, actor=actor, expected=expected, reason=reason, **form.changes)


def _form_page(
    request: HttpRequest, form: CatalogueModelForm, title: str, button: str, **context: Any
) -> HttpResponse:
    context |= {"form": form, "heading": title, "button": button, "back": _listed()}
    crumbs, status = [("Models", _listed())], status_of(form)
    return page(request, "setup/model.html", context, title=title, crumbs=crumbs, status=status)


def _listed() -> str:
    return reverse("console:models")
