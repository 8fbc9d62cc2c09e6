"""Pages of policy versions: the editor, a version, and a comparison of two."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.core import clock
from controlplane.core.errors import Conflict
from controlplane.web.pages import attempt, console_view, done, fragment, keep_refusal, page, status_of
from pointsman.conditions.inputs import SECOND_STAGE
from pointsman.errors import PolicyInvalid
from pointsman.policy import completed, parse
from pointsman.policy.canonical import plain
from policies_app import actions, selectors
from policies_app.catalogue.usage import model_notices
from policies_app.catalogue.validation import problems_of_text, told
from policies_app.console.lookups import (
    environments_of,
    may_edit,
    serving_address,
    trail,
    version_asked,
    workload_for,
)
from policies_app.console.workloads import served_in, served_places
from policies_app.documents.differences import differences
from policies_app.documents.line_diff import side_by_side
from policies_app.documents.yaml_text import EXAMPLE_MODELS, KEYS, as_yaml, first_policy
from policies_app.forms import VersionForm
from policies_app.models import Model, PolicyVersion, Workload


@console_view("GET", "POST")
def new_version(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name, edit=True)
    newest = workload.versions.defer("canonical").first()
    initial = {"text": _starting_text(request, workload), "newest": newest.number if newest else 0}
    form = VersionForm(request.POST or None, initial=initial)
    meanwhile = _meanwhile(request, form, newest)
    if not meanwhile and (version := attempt(request, form, _keep, workload)):
        return done(
            request,
            f"Version {version.number} is saved. {_what_is_next(request, workload)}",
            to=_after(request, version),
        )
    return _editor(request, workload, form, meanwhile=meanwhile)


def _what_is_next(request: HttpRequest, workload: Workload) -> str:
    served = served_in(environments_of(request)).filter(workload=workload).exists()
    return "A rollout puts it on traffic." if served else "Serve it in an environment."


def _after(request: HttpRequest, version: PolicyVersion) -> str:
    """Return the URL of the version's page, or of the form that proposes it."""
    name, number = version.workload.name, version.number
    if "propose" in request.POST:
        return f"{reverse('console:propose')}?workload={name}&candidate={number}&saved"
    return reverse("console:version", args=[name, number]) + "?saved"


def _keep(workload: Workload, *, newest: int | None, **values: Any) -> PolicyVersion:
    return actions.add_version_from_text(workload, **values)


def _meanwhile(request: HttpRequest, form: VersionForm, newest: PolicyVersion | None) -> PolicyVersion | None:
    """Return the version that somebody saved while this text was written, or None. The next save overrides it."""
    if newest is None or not form.is_bound:
        return None
    seen = form.data.get("newest", "")
    if not (seen.isdecimal() and len(seen) < 11) or int(seen) >= newest.number:
        return None
    form.data = {**form.data.dict(), "newest": str(newest.number)}  # type: ignore[attr-defined]
    keep_refusal(request, Conflict(f"Version {newest.number} was saved while this text was written."))
    return newest


@console_view("POST")
def check_version(request: HttpRequest, name: str) -> HttpResponse:
    """Report every problem of the text, and its differences from what is served. Nothing is saved.

    The editor sends this while the person types, and gets back the part of the page that shows the result.
    """
    workload = workload_for(request, name, edit=True)
    form = VersionForm(request.POST)
    form.problems = told(problems_of_text(request.POST.get("text", ""), workload))
    if request.headers.get("HX-Request"):
        context = {"workload": workload, "form": form, **_against_served(request, workload, form)}
        return fragment(request, "policies/_checked.html", {**context, "checked": True})
    return _editor(request, workload, form, checked=True)


def _editor(request: HttpRequest, workload: Workload, form: VersionForm, **context: Any) -> HttpResponse:
    served = served_in(environments_of(request)).filter(workload=workload)
    context |= {"workload": workload, "form": form, "words": _words(), "may_propose": served.exists()}
    if form.is_bound:
        context |= _against_served(request, workload, form)
    crumbs = trail(workload)
    status = 409 if context.get("meanwhile") else status_of(form)
    return page(
        request, "policies/new_version.html", context, title="New version", crumbs=crumbs, status=status
    )


def _against_served(request: HttpRequest, workload: Workload, form: VersionForm) -> dict[str, Any]:
    """Compare the typed text with the served version, or with the newest one if none is served."""
    served = (
        served_in(environments_of(request)).filter(workload=workload).order_by("environment__name").first()
    )
    reference = served.baseline if served else workload.versions.first()
    if reference is None or form.has_errors:
        return {}
    try:
        typed = completed(plain(parse(form.data.get("text", "")).data))
    except PolicyInvalid:
        return {}
    return {
        "reference": reference,
        "differences": differences(reference.document, typed),
        "rows": side_by_side(as_yaml(reference.document), as_yaml(typed)),
    }


def _words() -> dict[str, list[str]]:
    """Return the editor's completions, by kind."""
    models = Model.objects.filter(enabled=True).values_list("name", flat=True)
    functions = ["has(", ".startsWith(", ".endsWith(", ".contains(", "in", "true", "false"]
    return {"model": list(models), "input": list(SECOND_STAGE), "key": list(KEYS), "function": functions}


def _starting_text(request: HttpRequest, workload: Workload) -> str:
    """Return the version given by `?from=`, otherwise the newest, otherwise a template for a first policy."""
    asked = "from" in request.GET
    version = version_asked(request, workload, "from") if asked else workload.versions.first()
    return as_yaml(version.document) if version else first_policy(workload.name, *_two_models())


def _two_models() -> tuple[str, str]:
    """Return a cheap and an expensive enabled model for the template; with fewer than two, the example's.

    A model without a price may cost anything, so it is taken only if fewer than two have one, and then as the
    expensive one.
    """
    models = list(Model.objects.filter(enabled=True).order_by("name"))
    if len(models) < 2 or {model.name for model in models} >= set(EXAMPLE_MODELS):
        return EXAMPLE_MODELS
    priced = sorted((price, model.name) for model in models if (price := _price(model)) is not None)
    names = [name for _, name in priced]
    if len(names) < 2:
        names += [model.name for model in models if model.name not in names]
    return names[0], names[-1]


def _price(model: Model) -> int | None:
    """Return nano-USD per million tokens, input and output together; None if either is unknown."""
    if model.input_nusd_per_mtok is None or model.output_nusd_per_mtok is None:
        return None
    return model.input_nusd_per_mtok + model.output_nusd_per_mtok


@console_view("GET")
def version_page(request: HttpRequest, name: str, number: int) -> HttpResponse:
    workload = workload_for(request, name)
    version = selectors.version_for(workload, number)
    served = list(served_in(environments_of(request)).filter(workload=workload))
    context = {
        "workload": workload,
        "version": version,
        "lines": as_yaml(version.document).splitlines(),
        "where": served_places(served).get(version.pk, []),
        "served": bool(served),
        "may_be_candidate": any(assignment.baseline_id != version.pk for assignment in served),
        "serve_at": "" if served else serving_address(request, workload),
        "others": workload.versions.exclude(pk=version.pk).defer("canonical")[:20],
        "may_edit": may_edit(request, workload),
        "notices": model_notices([version.document], clock.now().date()),
        "saved": "saved" in request.GET,
    }
    title = f"Version {version.number}"
    return page(request, "policies/version.html", context, title=title, crumbs=trail(workload))


@console_view("GET")
def diff(request: HttpRequest, name: str) -> HttpResponse:
    """Compare two versions (`?before=3&after=4`): by path for the meaning, side by side for the text."""
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
