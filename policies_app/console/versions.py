"""Pages of policy versions: the editor, one version, two compared."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.core import clock
from controlplane.web.pages import attempt, console_view, done, page, status_of
from policies_app import actions, selectors
from policies_app.catalogue.usage import model_notices
from policies_app.catalogue.validation import problems_of_text
from policies_app.console.lookups import environments_of, may_edit, trail, version_asked, workload_for
from policies_app.console.workloads import served_in, served_places
from policies_app.documents.differences import differences
from policies_app.documents.line_diff import side_by_side
from policies_app.documents.yaml_text import FIRST_POLICY, as_yaml
from policies_app.forms import VersionForm
from policies_app.models import PolicyVersion, Workload


@console_view("GET", "POST")
def new_version(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name, edit=True)
    form = VersionForm(request.POST or None, initial={"text": _starting_text(request, workload)})
    if version := attempt(request, form, actions.add_version_from_text, workload):
        to = reverse("console:version", args=[workload.name, version.number])
        return done(request, f"Version {version.number} is saved. A rollout brings it to traffic.", to=to)
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
    crumbs, status = trail(workload), status_of(form)
    return page(
        request, "policies/new_version.html", context, title="New version", crumbs=crumbs, status=status
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
        "where": served_places(served_in(environments_of(request)).filter(workload=workload)).get(
            version.pk, []
        ),
        "others": workload.versions.exclude(pk=version.pk).defer("canonical")[:20],
        "may_edit": may_edit(request, workload),
        "notices": model_notices([version.document], clock.now().date()),
    }
    title = f"Version {version.number}"
    return page(request, "policies/version.html", context, title=title, crumbs=trail(workload))


@console_view("GET")
def diff(request: HttpRequest, name: str) -> HttpResponse:
    """`?before=3&after=4`: by path for what it means, side by side for how it reads."""
    workload = workload_for(request, name)
    before, after = (version_asked(request, workload, side) for side in ("before", "after"))
    context = _compared(before, after) | {
        "workload": workload,
        "versions": workload.versions.defer("canonical"),
        "may_edit": may_edit(request, workload),
    }
    title = f"v{before.number} → v{after.number}"
    return page(request, "policies/diff.html", context, title=title, crumbs=trail(workload))


def _compared(before: PolicyVersion, after: PolicyVersion) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "differences": differences(before.document, after.document),
        "rows": side_by_side(as_yaml(before.document), as_yaml(after.document)),
    }
