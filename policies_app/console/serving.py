"""Forms that change what is served: serve a first version, pin, unpin, stop serving."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse

from controlplane.access.models import Role
from controlplane.web.pages import attempt, console_view, done, page, status_of
from policies_app import actions
from policies_app.console.lookups import address_of, assignment_for, environment_for, trail, workload_for
from policies_app.forms import PinForm, ReasonForm, ServeForm, UnpinForm
from policies_app.four_eyes.actions import request_serving
from policies_app.models import Assignment, Environment, Workload


@console_view("GET", "POST")
def serve(request: HttpRequest, name: str, environment: str) -> HttpResponse:
    workload = workload_for(request, name)
    place = environment_for(request, environment, role=Role.OPERATOR)
    form = ServeForm(workload.versions.all(), request.POST or None, four_eyes=place.four_eyes)
    if message := attempt(request, form, _serve_or_ask, place):
        return done(request, message, to=address_of(workload))
    context = {"heading": f"Serve {workload.name} in {place.name}", "button": "Serve it"}
    context["about"] = (
        "Routers get this version with their next poll. Every later version requires a rollout."
    )
    if place.four_eyes:
        context["about"] = (
            f"{place.name} requires four eyes: another person must approve it before routers get it."
        )
        context["button"] = "Request it"
    if not workload.versions.exists():
        context["about"] = f"{workload.name} has no version yet: write one first."
    return _sheet(request, workload, form, **context)


def _serve_or_ask(place: Environment, *, break_glass: bool = False, **values: Any) -> str:
    """Serve the version, or request a second person's approval if the environment requires it. Return a message."""
    if place.four_eyes and not break_glass:
        request_serving(place, **values)
        return "Requested. Another person must approve it."
    assignment = actions.serve_first(place, break_glass=break_glass, **values)
    return f"{place.name} serves {assignment.workload.name} now."


@console_view("GET", "POST")
def pin(request: HttpRequest, name: str, environment: str) -> HttpResponse:
    assignment = assignment_for(request, name, environment, role=Role.OPERATOR)
    form = PinForm(assignment, request.POST or None)
    if attempt(request, form, actions.pin, assignment):
        return done(request, f"{name} is pinned in {environment}.", to=address_of(assignment.workload))
    context = {"heading": f"Pin {name} in {environment}", "button": "Pin it", "danger": True}
    context["about"] = (
        "The emergency switch: every task goes to one model, whatever the policy or a rollout says, "
        "from the routers' next poll until it is unpinned. Nobody's approval is needed."
    )
    return _sheet(request, assignment.workload, form, **context)


@console_view("GET", "POST")
def unpin(request: HttpRequest, name: str, environment: str) -> HttpResponse:
    assignment = assignment_for(request, name, environment, role=Role.OPERATOR)
    form = UnpinForm(request.POST or None, initial={"expected": actions.pin_tag(assignment)})
    if attempt(request, form, actions.unpin, assignment):
        return done(request, f"{name} follows its policy again.", to=address_of(assignment.workload))
    context = {"heading": f"Unpin {name} in {environment}", "button": "Unpin it"}
    context["about"] = f"It is pinned to {assignment.pin_model}: {assignment.pin_reason}"
    return _sheet(request, assignment.workload, form, **context)


@console_view("GET", "POST")
def stop(request: HttpRequest, name: str, environment: str) -> HttpResponse:
    assignment = assignment_for(request, name, environment, role=Role.OPERATOR)
    form = ReasonForm(request.POST or None)
    if attempt(request, form, _stop, assignment):
        return done(request, f"{environment} no longer serves {name}.", to=address_of(assignment.workload))
    context = {"heading": f"Stop serving {name} in {environment}", "button": "Stop serving", "danger": True}
    context["about"] = (
        "Routers drop its policy with their next poll and answer its tasks by their own default. "
        "Serving it again needs the same approval as a first version."
    )
    return _sheet(request, assignment.workload, form, **context)


def _stop(assignment: Assignment, **values: Any) -> bool:
    actions.stop_serving(assignment, **values)
    return True


def _sheet(request: HttpRequest, workload: Workload, form: forms.Form, **context: Any) -> HttpResponse:
    """Render a single-action form under a description of what it will do."""
    context |= {"form": form, "back": address_of(workload)}
    crumbs, status = trail(workload), status_of(form)
    return page(request, "console/sheet.html", context, title=context["button"], crumbs=crumbs, status=status)
