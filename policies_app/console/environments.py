"""Pages of environments: register, edit, freeze now or later, end a freeze."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.access.models import Role
from controlplane.core import clock
from controlplane.web.pages import Crumb, attempt, console_view, done, may, must, page, status_of
from policies_app import actions
from policies_app.console.lookups import environment_for, environments_of
from policies_app.console.setup_forms import EnvironmentForm, FreezeForm, ThawForm
from policies_app.models import Environment


@console_view("GET")
def environments(request: HttpRequest) -> HttpResponse:
    must(request, None, None)
    now = clock.now()
    context = {
        "rows": [
            (environment, environment.is_frozen(now), may(request, Role.ADMIN, environment.name))
            for environment in environments_of(request)
        ],
        "now": now,
        "may_add": may(request, Role.ADMIN, ""),
    }
    return page(request, "setup/environments.html", context, title="Environments")


@console_view("GET", "POST")
def new_environment(request: HttpRequest) -> HttpResponse:
    must(request, Role.ADMIN, "")
    form = EnvironmentForm(request.POST or None, initial={"four_eyes": True, "poll_interval_ms": 10_000})
    if environment := attempt(request, form, _register):
        return done(
            request, f"{environment.name} was registered. Now issue a key for its routers.", to=_listed()
        )
    return _form_page(request, form, title="New environment", button="Register it")


def _register(*, expected: None, **values: Any) -> Environment:
    return actions.register_environment(**values)


@console_view("GET", "POST")
def edit_environment(request: HttpRequest, name: str) -> HttpResponse:
    environment = environment_for(request, name, role=Role.ADMIN)
    form = EnvironmentForm(request.POST or None, instance=environment)
    if edited := attempt(request, form, _edit, form):
        return done(request, f"{edited.name} is saved.", to=_listed())
    context = {"four_eyes_off": environment.four_eyes and reverse("console:four_eyes_off", args=[name])}
    return _form_page(request, form, title=f"Edit {name}", button="Save", **context)


def _edit(form: EnvironmentForm, *, actor: Any, expected: int, reason: str, **_: Any) -> Environment:
    changes = form.changes
    return actions.edit_environment(form.instance, actor=actor, expected=expected, reason=reason, **changes)


@console_view("GET", "POST")
def freeze(request: HttpRequest, name: str) -> HttpResponse:
    environment = environment_for(request, name, role=Role.ADMIN)
    shown = ("frozen_from", "frozen_until", "freeze_reason") if _lies_ahead(environment.frozen_until) else ()
    initial = {each: getattr(environment, each) for each in shown} | {"expected": environment.version}
    form = FreezeForm(request.POST or None, initial=initial)
    if frozen := attempt(request, form, _freeze, environment):
        begins = "is frozen now" if frozen.is_frozen(clock.now()) else "will be frozen"
        return done(request, f"{name} {begins}. It ends automatically.", to=_listed())
    about = "During a freeze, nothing starts or advances. Pause, rollback and pin still work."
    title, button = f"Freeze {name}", "Freeze it"
    context = {"heading": title, "about": about, "button": button, "form": form, "back": _listed()}
    return page(request, "console/sheet.html", context, title=title, crumbs=_trail(), status=status_of(form))


def _lies_ahead(moment: datetime | None) -> bool:
    return moment is not None and moment > clock.now()


def _freeze(environment: Environment, *, freeze_reason: str, **values: Any) -> Environment:
    return actions.edit_environment(environment, reason=freeze_reason, freeze_reason=freeze_reason, **values)


@console_view("GET", "POST")
def thaw(request: HttpRequest, name: str) -> HttpResponse:
    environment = environment_for(request, name, role=Role.ADMIN)
    form = ThawForm(request.POST or None, initial={"expected": environment.version})
    over = {"frozen_from": None, "frozen_until": None, "freeze_reason": ""}
    if attempt(request, form, actions.edit_environment, environment, **over):
        return done(request, f"The change freeze of {name} is over.", to=_listed())
    title = f"End the freeze of {name}"
    about = (
        f"It would end automatically at {environment.frozen_until:%Y-%m-%d %H:%M} UTC."
        if environment.frozen_until
        else ""
    )
    context = {"heading": title, "about": about, "button": "End it now", "form": form, "back": _listed()}
    return page(request, "console/sheet.html", context, title=title, crumbs=_trail(), status=status_of(form))


def _form_page(request: HttpRequest, form: EnvironmentForm, *, title: str, **context: Any) -> HttpResponse:
    context |= {"form": form, "heading": title, "back": _listed()}
    status = status_of(form)
    return page(request, "setup/environment.html", context, title=title, crumbs=_trail(), status=status)


def _listed() -> str:
    return reverse("console:environments")


def _trail() -> list[Crumb]:
    return [("Environments", _listed())]
