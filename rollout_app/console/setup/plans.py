"""Pages of plans: the list, the builder with its picture, and removal.

The builder works with buttons only: `add` and `remove` redraw the form with one stage more or less. With scripts, the
picture updates while typing.
"""

import re
from collections.abc import Sequence
from typing import Any

from django.forms.formsets import BaseFormSet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import path, reverse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core.errors import PlanRefused
from controlplane.web.pages import attempt, console_view, done, fragment, may, must, page, status_of
from controlplane.web.seen import kept_line
from policies_app.console.lookups import environments_of
from policies_app.models import Assignment
from rollout_app import actions
from rollout_app.console.setup.plan_forms import (
    PlanForm,
    RemovePlanForm,
    StageForm,
    StageForms,
    TrafficForm,
    initial_of,
)
from rollout_app.console.setup.ramp import Ramp, ramp
from rollout_app.console.setup.traffic import TrafficFigures, traffic
from rollout_app.engine import plans as rules
from rollout_app.engine.evidence import Stage
from rollout_app.models import Plan
from rollout_app.selectors import plan_for

_FIRST: list[dict[str, Any]] = rules.SAVED["standard"][1]
_ORDER = {"shadow": 0, "percentage": 1, "full": 2}


@console_view("GET")
def plans(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    context = {
        "plans": [(plan, _drawn(plan.stages, None)) for plan in Plan.objects.all()],
        "may_add": may(request, Role.EDITOR, permissions.ANYWHERE),
        "may_edit": may(request, Role.EDITOR, ""),
    }
    return page(request, "plans/plans.html", context, title="Plans")


@console_view("GET", "POST")
def new_plan(request: HttpRequest) -> HttpResponse:
    must(request, Role.EDITOR, permissions.ANYWHERE)
    like = Plan.objects.filter(name=request.GET.get("like", "")).first()
    form = PlanForm(request.POST or None)
    stages = _stage_forms(request, like.stages if like else _FIRST)
    if not _redrawn(request) and attempt(request, form, _add, stages) is not None:
        return done(request, f"Plan {form.cleaned_data['name']} is saved.", to=_listed())
    return _builder(request, form, stages, title="New plan")


def _add(stages: "BaseFormSet[StageForm]", *, expected: None, **values: Any) -> Plan:
    return actions.add_plan(stages=_checked(stages), **values)


@console_view("GET", "POST")
def edit_plan(request: HttpRequest, name: str) -> HttpResponse:
    must(request, Role.EDITOR, "")
    plan = plan_for(name)
    shown = {"description": plan.description, "expected": plan.version}
    form = PlanForm(request.POST or None, initial=shown)
    del form.fields["name"]
    stages = _stage_forms(request, plan.stages)
    if not _redrawn(request) and attempt(request, form, _edit, plan, stages) is not None:
        return done(request, f"Plan {name} is saved. Rollouts under way keep their own copy.", to=_listed())
    return _builder(request, form, stages, title=f"Edit plan {name}", plan=plan)


def _edit(plan: Plan, stages: "BaseFormSet[StageForm]", *, description: str, **values: Any) -> Plan:
    kept = kept_line(description, plan.description)
    return actions.edit_plan(plan.name, stages=_checked(stages), description=kept, **values)


@console_view("GET", "POST")
def remove_plan(request: HttpRequest, name: str) -> HttpResponse:
    must(request, Role.EDITOR, "")
    plan = plan_for(name)
    form = RemovePlanForm(request.POST or None, initial={"expected": plan.version})
    if attempt(request, form, _remove, plan):
        return done(request, f"Plan {name} is removed.", to=_listed())
    about = "Rollouts that follow it keep their own copy."
    title = f"Remove plan {name}"
    context = {"heading": title, "about": about, "button": "Remove it", "danger": True, "form": form}
    context["back"] = _listed()
    return page(request, "console/sheet.html", context, title=title, crumbs=_trail(), status=status_of(form))


def _remove(plan: Plan, **values: Any) -> bool:
    actions.remove_plan(plan.name, **values)
    return True


@console_view("POST")
def draw_plan(request: HttpRequest) -> HttpResponse:
    """Return the picture of the typed plan and its expected length. Stores nothing."""
    must(request, None, permissions.ANYWHERE)
    return fragment(request, "plans/_ramp.html", _picture(request, StageForms(request.POST)))


# --- the builder --------------------------------------------------------------------------------------


def _redrawn(request: HttpRequest) -> bool:
    return "add" in request.POST or "remove" in request.POST


def _stage_forms(request: HttpRequest, saved: Sequence[Any]) -> "BaseFormSet[StageForm]":
    """Return the posted stages, with one more or less if requested, or the plan's stages."""
    if request.method != "POST":
        return StageForms(initial=[initial_of(stage) for stage in saved])
    posted = StageForms(request.POST)
    if not _redrawn(request):
        return posted
    rows = [{name: form[name].value() for name in form.fields} for form in posted.forms]
    if "add" in request.POST:
        rows.append({"mode": "percentage", "min_minutes": 15, "min_tasks": 50, "max_hours": 72})
    elif len(rows) > 1:
        rows = [row for at, row in enumerate(rows) if str(at) != request.POST["remove"]]
    return StageForms(_as_posted(rows))


def _as_posted(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {"form-TOTAL_FORMS": len(rows), "form-INITIAL_FORMS": 0}
    for at, row in enumerate(rows):
        # Browsers do not post an unchecked box.
        data |= {f"form-{at}-{name}": value for name, value in row.items() if value not in (None, False)}
    return data


def _in_order(stages: "BaseFormSet[StageForm]") -> list[StageForm]:
    """Sort the stages into the only order that a plan can have."""
    return sorted(stages.forms, key=lambda form: (_ORDER[form.cleaned_data["mode"]], form.share))


def _checked(stages: "BaseFormSet[StageForm]") -> list[dict[str, Any]]:
    """Return the stages as input for the actions. Raises `PlanRefused` if a field is invalid."""
    if not stages.is_valid():
        raise PlanRefused("Some stages are invalid; see the marked fields.")
    return [form.stage() for form in _in_order(stages)]


_FIELDS = {"share_pcm": "share_percent", "mirror_pcm": "mirror"}
_PROBLEM = re.compile(r"stages\[(\d+)\](?:\.(\w+))?")


def _mark(stages: "BaseFormSet[StageForm]", problems: Sequence[Any]) -> None:
    """Attach each problem of a refused plan to the field of its stage."""
    for problem in problems:
        if found := _PROBLEM.fullmatch(problem["path"]):
            form, name = _in_order(stages)[int(found[1])], _FIELDS.get(found[2] or "", found[2])
            form.add_error(name if name in form.fields else None, problem["message"])


def _builder(
    request: HttpRequest, form: PlanForm, stages: "BaseFormSet[StageForm]", *, title: str, **context: Any
) -> HttpResponse:
    context |= {"form": form, "stages": stages, "heading": title, "back": _listed()}
    context |= _picture(request, stages)
    _mark(stages, getattr(form, "problems", ()))
    status = 200 if _redrawn(request) else status_of(form)
    return page(request, "plans/plan.html", context, title=title, crumbs=_trail(), status=status)


def _picture(request: HttpRequest, stages: "BaseFormSet[StageForm]") -> dict[str, Any]:
    """Return `picture`, or `why_not` with a sentence if it cannot be drawn yet."""
    served = Assignment.objects.filter(environment__in=environments_of(request))
    served = served.select_related("workload", "environment").defer("fragment").order_by("workload__name")
    chooser = TrafficForm(served, _asked(request))
    at = chooser.cleaned_data.get("at") if chooser.is_valid() else None
    incoming = traffic(at) if at else None
    context: dict[str, Any] = {"chooser": chooser, "incoming": incoming, "at": at}
    try:
        given = rules.check(_checked(stages)) if stages.is_bound else [f.initial for f in stages.forms]
        return {**context, "picture": _drawn(given, incoming), "cautions": _cautions(given)}
    except PlanRefused as error:
        return {**context, "why_not": error.detail}


def _asked(request: HttpRequest) -> QueryDict:
    """Return the query that names the workload whose traffic to use: the posted one, or the one in the URL."""
    return request.POST if "at" in request.POST else request.GET


def _drawn(stages: Sequence[Any], incoming: TrafficFigures | None) -> Ramp:
    per_minute, failure = (incoming.per_minute, incoming.failure) if incoming else (None, 0.1)
    return ramp([Stage.from_dict(stage) for stage in stages], tasks_per_minute=per_minute, failure=failure)


def _cautions(stages: Sequence[Any]) -> list[str]:
    return [found["message"] for found in rules.warnings([Stage.from_dict(stage) for stage in stages])]


def _listed() -> str:
    return reverse("console:plans")


def _trail() -> list[tuple[str, str]]:
    return [("Plans", _listed())]


urlpatterns = [
    path("plans/", plans, name="plans"),
    path("new-plan/", new_plan, name="new_plan"),
    path("draw-plan/", draw_plan, name="draw_plan"),
    path("plans/<slug:name>/edit/", edit_plan, name="edit_plan"),
    path("plans/<slug:name>/remove/", remove_plan, name="remove_plan"),
]
