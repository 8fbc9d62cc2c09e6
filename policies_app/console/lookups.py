"""Look up the objects named in a page's URL: 404 for what this person may not see."""

from django.http import HttpRequest
from django.urls import reverse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.web.pages import Crumb, may, must, person
from policies_app import selectors
from policies_app.models import Assignment, Environment, PolicyVersion, Workload


def workload_for(request: HttpRequest, name: str, *, edit: bool = False) -> Workload:
    """Return the workload, for anyone with a role anywhere; with `edit`, only for its owners."""
    must(request, None, permissions.ANYWHERE)
    return selectors.workload_for(person(request), name, edit=edit)


def environment_for(request: HttpRequest, name: str, *, role: Role = Role.VIEWER) -> Environment:
    return selectors.environment_for(person(request), name, role=role)


def environments_of(request: HttpRequest) -> list[Environment]:
    return list(selectors.environments_for(person(request)).order_by("name"))


def assignment_for(request: HttpRequest, workload: str, environment: str, *, role: Role) -> Assignment:
    return selectors.assignment_for(person(request), environment, workload, role=role)


def version_asked(request: HttpRequest, workload: Workload, parameter: str) -> PolicyVersion:
    """Return the version whose number is in the query string."""
    number = request.GET.get(parameter, "")
    return selectors.version_for(workload, int(number) if number.isdecimal() and len(number) < 10 else 0)


def may_edit(request: HttpRequest, workload: Workload) -> bool:
    return permissions.may_edit_workload(person(request), workload.owner, workload.name)


def address_of(workload: Workload) -> str:
    return reverse("console:workload", args=[workload.name])


def serving_address(request: HttpRequest, workload: Workload) -> str:
    """Return where this person serves the first version of a workload that no environment serves: the form if there is
    only one environment to choose, otherwise the workload's page. Empty if they operate none.
    """
    places = [place.name for place in environments_of(request) if may(request, Role.OPERATOR, place.name)]
    if len(places) == 1:
        return reverse("console:serve", args=[workload.name, places[0]])
    return address_of(workload) if places else ""


def trail(workload: Workload | None = None) -> list[Crumb]:
    """Return the breadcrumbs of a workload's pages."""
    crumbs = [("Workloads", reverse("console:workloads"))]
    return crumbs if workload is None else [*crumbs, (workload.name, address_of(workload))]
