"""Pages of workloads, and of what each environment serves for them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core import clock
from controlplane.web.pages import console_view, may, must, page, paginated
from policies_app.catalogue.usage import model_notices
from policies_app.console.lookups import environments_of, may_edit, trail, workload_for
from policies_app.fleet.listening import read_hearing
from policies_app.fleet.readback import Readback, read_fleet, silent_before
from policies_app.models import Assignment, Environment, Router, Workload

RECENT = timedelta(minutes=10)  # how long the page shows the progress of a change


@console_view("GET")
def workloads(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    environments = environments_of(request)
    found = Workload.objects.select_related("owner").prefetch_related(
        Prefetch("assignments", served_in(environments))
    )
    if words := request.GET.get("q", "").strip():
        found = found.filter(Q(name__icontains=words) | Q(owner__name__icontains=words) | Q(task_type=words))
    rows = paginated(request, found)
    table = [(workload, _by_environment(workload.assignments.all(), environments)) for workload in rows]
    may_add = may(request, Role.EDITOR, permissions.ANYWHERE)
    context = {"environments": environments, "rows": rows, "table": table, "may_add": may_add}
    return page(request, "policies/workloads.html", context, title="Workloads")


@console_view("GET")
def workload_page(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name)
    environments = environments_of(request)
    served = list(served_in(environments).filter(workload=workload))
    readbacks = _readbacks(served)
    context = {
        "workload": workload,
        "environments": environments,
        "may_edit": may_edit(request, workload),
        "places": [
            _served_row(request, environment, assignment) | {"readback": readbacks.get(environment.pk)}
            for environment, assignment in _by_environment(served, environments)
        ],
        "rows": paginated(request, workload.versions.defer("canonical").all(), 15),
        "where": served_places(served),
        "notices": model_notices(_documents(served), clock.now().date()),
    }
    return page(request, "policies/workload.html", context, title=workload.name, crumbs=trail())


def _documents(served: Iterable[Assignment]) -> list[dict[str, Any]]:
    versions = [version for a in served for version in (a.baseline, a.candidate) if version is not None]
    return [version.document for version in versions]


def served_in(environments: Sequence[Environment]) -> QuerySet[Assignment]:
    found = Assignment.objects.filter(environment__in=environments).defer("fragment")
    return found.select_related("environment", "workload", "baseline", "candidate")


def _by_environment(
    served: Iterable[Assignment], environments: Sequence[Environment]
) -> list[tuple[Environment, Assignment | None]]:
    by_environment = {assignment.environment_id: assignment for assignment in served}
    return [(environment, by_environment.get(environment.pk)) for environment in environments]


def _served_row(
    request: HttpRequest, environment: Environment, assignment: Assignment | None
) -> dict[str, Any]:
    """Return one environment's row on the workload's page, with what this person may do there."""
    return {
        "environment": environment,
        "assignment": assignment,
        "may_operate": may(request, Role.OPERATOR, environment.name),
        "may_propose": may(request, Role.EDITOR, environment.name),
    }


def _readbacks(served: Iterable[Assignment]) -> dict[int, Readback]:
    """Map environment keys to the readback of a pin or recent change. Two queries, regardless of how many."""
    now = clock.now()
    waited_for = [a for a in served if a.pin_model or now - a.changed_at < RECENT]
    if not waited_for:
        return {}
    hearing = read_hearing()
    routers: dict[int, list[Router]] = defaultdict(list)
    oldest = min(silent_before(hearing, at) for at in (now, *(a.changed_at for a in waited_for)))
    oldest = min(oldest, *(a.changed_at for a in waited_for))
    places = [a.environment_id for a in waited_for]
    for router in Router.objects.filter(environment__in=places, polled_at__gte=oldest):
        routers[router.environment_id].append(router)
    found = {}
    for a in waited_for:
        known = routers[a.environment_id]
        fleet = read_fleet(a.environment, now=now, back_to=a.changed_at, hearing=hearing, known=known)
        found[a.environment_id] = fleet.readback(a.revision, changed_at=a.changed_at)
    return found


def served_places(served: Iterable[Assignment]) -> dict[int, list[str]]:
    """Map version keys to the places that serve them: `production`, `staging (candidate)`."""
    where = defaultdict(list)
    for assignment in served:
        where[assignment.baseline_id].append(assignment.environment.name)
        if assignment.candidate_id is not None:
            where[assignment.candidate_id].append(f"{assignment.environment.name} (candidate)")
    return dict(where)
