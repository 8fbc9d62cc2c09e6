"""Pages to register and edit a workload."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from controlplane.access import permissions
from controlplane.access.models import Role, Team
from controlplane.web.pages import attempt, console_view, done, may, must, page, person, status_of
from policies_app import actions
from policies_app.console.lookups import address_of, trail, workload_for
from policies_app.console.setup_forms import WorkloadForm
from policies_app.models import Workload


@console_view("GET", "POST")
def new_workload(request: HttpRequest) -> HttpResponse:
    must(request, Role.EDITOR, permissions.ANYWHERE)
    form = WorkloadForm(_offered(request), request.POST or None)
    if workload := attempt(request, form, _register):
        return done(
            request, f"{workload.name} was registered. Now write its first policy.", to=address_of(workload)
        )
    context = {"form": form, "heading": "New workload", "button": "Register it", "back": ".."}
    context["may_create_team"] = may(request, Role.ADMIN, "")
    crumbs, status = trail(), status_of(form)
    return page(request, "setup/workload.html", context, title="New workload", crumbs=crumbs, status=status)


def _register(*, actor: Any, expected: None, **values: Any) -> Workload:
    permissions.require_workload_editor(actor, values["owner"], values["name"])
    return actions.register_workload(actor=actor, **values)


@console_view("GET", "POST")
def edit_workload(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name, edit=True)
    teams = _offered(request) | Team.objects.filter(pk=workload.owner_id)
    form = WorkloadForm(teams.distinct(), request.POST or None, instance=workload)
    if edited := attempt(request, form, _edit, form):
        return done(request, f"{edited.name} is saved.", to=address_of(edited))
    title = f"Edit {name}"
    context = {"form": form, "heading": title, "button": "Save", "back": address_of(workload)}
    crumbs, status = trail(workload), status_of(form)
    return page(request, "setup/workload.html", context, title=title, crumbs=crumbs, status=status)


def _edit(form: WorkloadForm, *, actor: Any, expected: int, reason: str, **_: Any) -> Workload:
    changes = form.changes
    if "owner" in changes:  # the editor must also belong to the team that receives the workload
        permissions.require_workload_editor(actor, changes["owner"], form.instance.name)
    return actions.edit_workload(form.instance, actor=actor, expected=expected, reason=reason, **changes)


def _offered(request: HttpRequest) -> QuerySet[Team]:
    """Return the teams that the form offers. A POST accepts any team, so that the action refuses a foreign one and
    logs it."""
    return Team.objects.all() if request.method == "POST" else teams_of(request)


def teams_of(request: HttpRequest) -> QuerySet[Team]:
    """Return the teams for which this person may register a workload."""
    teams = Team.objects.order_by("name")
    return teams if may(request, Role.ADMIN, "") else teams.filter(members=person(request))
