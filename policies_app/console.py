"""Pages of workloads, their versions, and what is served of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core import clock
from controlplane.web.pages import (
    Crumb,
    attempt,
    console_view,
    done,
    fragment,
    may,
    must,
    page,
    paginated,
    person,
    status_of,
)
from policies_app import actions, selectors
from policies_app.differences import differences
from policies_app.document_text import FIRST_POLICY, add_version, as_yaml, problems_of_text, side_by_side
from policies_app.fleet import registry
from policies_app.forms import PinForm, ReasonForm, ServeForm, VersionForm
from policies_app.models import Assignment, Environment, PolicyVersion, Workload
from policies_app.snapshots import publish

# --- gates --------------------------------------------------------------------------------------------


def workload_for(request: HttpRequest, name: str, *, edit: bool = False) -> Workload:
    """The workload, for anybody with a role anywhere; to edit it, for its owners."""
    must(request, None, permissions.ANYWHERE)
    return selectors.workload_for(person(request), name, edit=edit)


def environment_for(request: HttpRequest, name: str, *, role: Role = Role.VIEWER) -> Environment:
    return selectors.environment_for(person(request), name, role=role)


def environments_of(request: HttpRequest) -> list[Environment]:
    return list(selectors.environments_for(person(request)).order_by("name"))


def assignment_for(request: HttpRequest, workload: str, environment: str, *, role: Role) -> Assignment:
    return selectors.assignment_for(person(request), environment, workload, role=role)


def version_asked(request: HttpRequest, workload: Workload, parameter: str) -> PolicyVersion:
    """The version whose number is in the address's query."""
    number = request.GET.get(parameter, "")
    return selectors.version_for(workload, int(number) if number.isdecimal() and len(number) < 10 else 0)


# --- workloads ----------------------------------------------------------------------------------------


@console_view("GET")
def workloads(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    environments = environments_of(request)
    found = Workload.objects.select_related("owner").prefetch_related(
        Prefetch("assignments", _served_in(environments))
    )
    if words := request.GET.get("q", "").strip():
        found = found.filter(Q(name__icontains=words) | Q(owner__name__icontains=words) | Q(task_type=words))
    rows = paginated(request, found)
    table = [(workload, _columns(workload.assignments.all(), environments)) for workload in rows]
    context = {"environments": environments, "rows": rows, "table": table}
    return page(request, "policies/workloads.html", context, title="Workloads")


@console_view("GET")
def workload_page(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name)
    environments = environments_of(request)
    served = list(_served_in(environments).filter(workload=workload))
    context = {
        "workload": workload,
        "environments": environments,
        "may_edit": _may_edit(request, workload),
        "places": [_place(request, *column) for column in _columns(served, environments)],
        "rows": paginated(request, workload.versions.defer("canonical").all(), 15),
        "where": _where(served),
    }
    return page(request, "policies/workload.html", context, title=workload.name, crumbs=_trail())


def _served_in(environments: Sequence[Environment]) -> QuerySet[Assignment]:
    found = Assignment.objects.filter(environment__in=environments).defer("fragment")
    return found.select_related("environment", "workload", "baseline", "candidate")


def _columns(
    served: Iterable[Assignment], environments: Sequence[Environment]
) -> list[tuple[Environment, Assignment | None]]:
    by_environment = {assignment.environment_id: assignment for assignment in served}
    return [(environment, by_environment.get(environment.pk)) for environment in environments]


def _place(request: HttpRequest, environment: Environment, assignment: Assignment | None) -> dict[str, Any]:
    """One environment on the workload's page, with what this person may do there."""
    return {
        "environment": environment,
        "assignment": assignment,
        "may_operate": may(request, Role.OPERATOR, environment.name),
        "may_propose": may(request, Role.EDITOR, environment.name),
    }


def _where(served: Iterable[Assignment]) -> dict[int, list[str]]:
    """Version's key → where it is served: `production`, `staging (candidate)`."""
    where = defaultdict(list)
    for assignment in served:
        where[assignment.baseline_id].append(assignment.environment.name)
        if assignment.candidate_id is not None:
            where[assignment.candidate_id].append(f"{assignment.environment.name} (candidate)")
    return dict(where)


def _may_edit(request: HttpRequest, workload: Workload) -> bool:
    return permissions.may_edit_workload(person(request), workload.owner, workload.name)


def _trail(workload: Workload | None = None) -> list[Crumb]:
    trail = [("Workloads", reverse("console:workloads"))]
    return trail if workload is None else [*trail, (workload.name, address_of(workload))]


def address_of(workload: Workload) -> str:
    return reverse("console:workload", args=[workload.name])


# --- versions -----------------------------------------------------------------------------------------


@console_view("GET", "POST")
def new_version(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name, edit=True)
    form = VersionForm(request.POST or None, initial={"text": _starting_text(request, workload)})
    if version := attempt(request, form, add_version, workload):
        to = reverse("console:version", args=[workload.name, version.number])
        return done(request, f"Version {version.number} is kept. Only a rollout gives it traffic.", to=to)
    return _editor(request, workload, form)


@console_view("POST")
def check_version(request: HttpRequest, name: str) -> HttpResponse:
    """The editor's second button: every problem of the text, and nothing kept."""
    workload = workload_for(request, name, edit=True)
    form = VersionForm(request.POST)
    form.problems = [p.as_dict() for p in problems_of_text(request.POST.get("text", ""), workload)]
    return _editor(request, workload, form, checked=True)


def _editor(request: HttpRequest, workload: Workload, form: VersionForm, **context: Any) -> HttpResponse:
    context |= {"workload": workload, "form": form}
    trail, status = _trail(workload), status_of(form)
    return page(
        request, "policies/new_version.html", context, title="New version", crumbs=trail, status=status
    )


def _starting_text(request: HttpRequest, workload: Workload) -> str:
    """The version asked for by `?from=`, else the newest, else a first policy to fill in."""
    asked = "from" in request.GET
    version = version_asked(request, workload, "from") if asked else workload.versions.first()
    return as_yaml(version.document) if version else FIRST_POLICY.format(workload=workload.name)


@console_view("GET")
def version_page(request: HttpRequest, name: str, number: int) -> HttpResponse:
    workload = workload_for(request, name)
    version = selectors.version_for(workload, number)
    context = {
        "workload": workload,
        "version": version,
        "lines": as_yaml(version.document).splitlines(),
        "where": _where(_served_in(environments_of(request)).filter(workload=workload)).get(version.pk, []),
        "others": workload.versions.exclude(pk=version.pk).defer("canonical")[:20],
        "may_edit": _may_edit(request, workload),
    }
    title = f"Version {version.number}"
    return page(request, "policies/version.html", context, title=title, crumbs=_trail(workload))


@console_view("GET")
def diff(request: HttpRequest, name: str) -> HttpResponse:
    """`?before=3&after=4`: by path for what it means, side by side for how it reads."""
    workload = workload_for(request, name)
    before, after = (version_asked(request, workload, side) for side in ("before", "after"))
    context = _compared(before, after) | {
        "workload": workload,
        "versions": workload.versions.defer("canonical"),
        "may_edit": _may_edit(request, workload),
    }
    title = f"v{before.number} → v{after.number}"
    return page(request, "policies/diff.html", context, title=title, crumbs=_trail(workload))


def _compared(before: PolicyVersion, after: PolicyVersion) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "differences": differences(before.document, after.document),
        "rows": side_by_side(as_yaml(before.document), as_yaml(after.document)),
    }


# --- what is served -----------------------------------------------------------------------------------


@console_view("GET", "POST")
def serve(request: HttpRequest, name: str, environment: str) -> HttpResponse:
    workload = workload_for(request, name)
    place = environment_for(request, environment, role=Role.OPERATOR)
    form = ServeForm(workload.versions.all(), request.POST or None)
    if attempt(request, form, actions.serve_first, place):
        return done(request, f"{place.name} serves {workload.name} now.", to=address_of(workload))
    context = {"heading": f"Serve {workload.name} in {place.name}", "button": "Serve it"}
    context["about"] = "Routers get this version with their next poll. Every later one comes by a rollout."
    return _sheet(request, workload, form, **context)


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
    form = ReasonForm(request.POST or None)
    if attempt(request, form, actions.unpin, assignment):
        return done(request, f"{name} follows its policy again.", to=address_of(assignment.workload))
    context = {"heading": f"Unpin {name} in {environment}", "button": "Unpin it"}
    context["about"] = f"It is pinned to {assignment.pin_model}: {assignment.pin_reason}"
    return _sheet(request, assignment.workload, form, **context)


def _sheet(request: HttpRequest, workload: Workload, form: forms.Form, **context: Any) -> HttpResponse:
    """One form that does one thing, with what it will do above it."""
    context |= {"form": form, "back": address_of(workload)}
    trail, status = _trail(workload), status_of(form)
    return page(request, "console/sheet.html", context, title=context["button"], crumbs=trail, status=status)


# --- fleet --------------------------------------------------------------------------------------------


@console_view("GET")
def fleet_page(request: HttpRequest, name: str = "") -> HttpResponse:
    """One environment's routers: who applied what, and who lags."""
    environments = environments_of(request)
    if not (name or environments):
        return page(request, "fleet/empty.html", {}, title="Fleet")
    environment = environment_for(request, name or environments[0].name)
    context = {"environment": environment, "environments": environments, **_fleet(environment)}
    if request.headers.get("HX-Request"):
        return fragment(request, "fleet/_live.html", context)
    return page(request, "fleet/fleet.html", context, title="Fleet")


def _fleet(environment: Environment) -> dict[str, Any]:
    """The routers seen in the last day, and which of them still poll, are up to date, refuse something."""
    now = clock.now()
    routers = list(environment.routers.filter(polled_at__gt=now - timedelta(days=1)).order_by("instance"))
    polling = [router for router in routers if router.polled_at >= now - registry.SEEN_WITHIN]
    view = registry.view(environment, environment.revision)
    refusals = defaultdict(list)
    for refusal in view.rejected:
        refusals[refusal.router].append(refusal)
    return {
        "routers": routers,
        "polling": {router.pk for router in polling},
        "revisions": {router.pk: registry.applied(router, now).revision for router in routers},
        "current": {router.pk for router in polling if router.instance not in view.stragglers},
        "refusals": dict(refusals),
        "published": next(iter(publish.states(environment.pk)), None),
    }


def fleets(environments: Iterable[Environment]) -> list[tuple[Environment, registry.FleetView]]:
    """Each environment with how far its present revision has come."""
    return [(environment, registry.view(environment, environment.revision)) for environment in environments]


urlpatterns = [
    path("workloads/", workloads, name="workloads"),
    path("workloads/<slug:name>/", workload_page, name="workload"),
    path("workloads/<slug:name>/versions/new/", new_version, name="new_version"),
    path("workloads/<slug:name>/versions/check/", check_version, name="check_version"),
    path("workloads/<slug:name>/versions/<int:number>/", version_page, name="version"),
    path("workloads/<slug:name>/diff/", diff, name="diff"),
    path("workloads/<slug:name>/<slug:environment>/serve/", serve, name="serve"),
    path("workloads/<slug:name>/<slug:environment>/pin/", pin, name="pin"),
    path("workloads/<slug:name>/<slug:environment>/unpin/", unpin, name="unpin"),
    path("fleet/", fleet_page, name="fleet"),
    path("fleet/<slug:name>/", fleet_page, name="fleet_of"),
]
