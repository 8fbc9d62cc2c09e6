"""Pages of rollouts: list, propose, watch and decide."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils import timezone

from controlplane.access import four_eyes, permissions
from controlplane.access.models import Role
from controlplane.web import live
from controlplane.web.engine import engine_seen
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
from policies_app.console.lookups import (
    environment_for,
    environments_of,
    may_edit,
    serving_address,
    workload_for,
)
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app import actions, selectors
from rollout_app.actions.approvals import contributors, counting, number_needed, standing_approvals
from rollout_app.actions.transitions import four_eyes_apply
from rollout_app.blast_radius.radius import went_back
from rollout_app.console import presenters
from rollout_app.console.ahead import Ahead, ahead_of, ahead_of_candidate, realised_of
from rollout_app.console.comparison import compare_arms
from rollout_app.console.evidence_chart import evidence_chart
from rollout_app.console.forms import AmendForm, ApproveForm, ProposeForm, RolloutReasonForm
from rollout_app.console.history import history
from rollout_app.console.rollout_actions import (
    RolloutAction,
    action_named,
    approval_binding,
    form_texts,
    offers,
    said_of,
)
from rollout_app.console.served_now import served_now
from rollout_app.engine.states import ACTIVE, ENDED, ENDED_WITHOUT_SUCCESS, State
from rollout_app.models import Approval, Plan, Rollout

_FILTERS = {
    "active": ("Under way", Q(state__in=sorted(ACTIVE))),
    "waiting": ("Waiting", Q(state__in=[State.DRAFT, State.AWAITING_APPROVAL, State.SCHEDULED])),
    "ended": ("Ended", Q(state__in=sorted(ENDED))),
    "": ("All", Q()),
}


_HEAVY = ("evidence", "baseline__canonical", "candidate__canonical")  # loaded only on access


# --- visibility
# ---------------------------------------------------------------------------------------------------


def visible(request: HttpRequest) -> QuerySet[Rollout]:
    """Return the rollouts of the environments that this person may see, without their heavy columns."""
    return selectors.rollouts_for(person(request)).defer(*_HEAVY)


def rollout_for(request: HttpRequest, pk: UUID, *, role: Role = Role.VIEWER) -> Rollout:
    return selectors.rollout_for(person(request), pk, role=role, deferred=_HEAVY)


# --- read ---------------------------------------------------------------------------------------------


def _may_propose(request: HttpRequest) -> bool:
    """Return whether this person may propose rollouts of the workload that the list shows; without one, of any."""
    shown = Workload.objects.filter(name=request.GET.get("workload", "")).first()
    return shown is None or may_edit(request, shown)


@console_view("GET")
def rollouts(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    rows = paginated(request, _narrowed(request))
    context = {
        "rows": rows,
        "listed": [(rollout, presenters.served_share(rollout)) for rollout in rows],
        "tabs": [(key, label) for key, (label, _) in _FILTERS.items()],
        "chosen": request.GET.get("show", ""),
        "may_propose": may(request, Role.EDITOR, permissions.ANYWHERE) and _may_propose(request),
    }
    return page(request, "rollouts/rollouts.html", context, title="Rollouts")


def _narrowed(request: HttpRequest) -> QuerySet[Rollout]:
    """Filter by `?show=` (state) and `?workload=` (name); unknown values are ignored."""
    _, condition = _FILTERS.get(request.GET.get("show", ""), _FILTERS[""])
    if workload := request.GET.get("workload"):
        condition &= Q(workload__name=workload)
    return visible(request).filter(condition)


_PARTS = {
    "head": "rollouts/_head.html",
    "engine": "rollouts/_engine.html",
    "state": "rollouts/_state_and_stages.html",
    "evidence": "rollouts/_evidence.html",
    "history": "rollouts/_history.html",
}


@console_view("GET")
def rollout_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show the whole page. For its own poll every two seconds, return only what changed."""
    rollout = rollout_for(request, pk)
    if live.is_poll(request):
        return _poll(request, rollout)
    context = _live(request, rollout, list(rollout.approvals.all()))
    parts = live.rendered(request, _PARTS, context)
    if not rollout.started_at and not context["ended"]:
        context["ahead"] = ahead_of(rollout)
    if rollout.started_at:
        context |= live.rendered(request, _FIGURES, _figures(rollout))
    context["realised"] = realised_of(rollout)
    title = f"v{rollout.baseline.number} → v{rollout.candidate.number}"
    return live.live_page(
        request, "rollouts/rollout.html", parts, context, title=title, crumbs=_trail(rollout)
    )


def _poll(request: HttpRequest, rollout: Rollout) -> HttpResponse:
    approvals = list(rollout.approvals.all())
    key = _drawn_from(rollout, approvals)
    if answer := live.unchanged(request, key):
        return answer
    context = _live(request, rollout, approvals)
    return live.fresh(request, live.rendered(request, _PARTS, context), ended=context["ended"], key=key)


def _drawn_from(rollout: Rollout, approvals: Sequence[Approval]) -> tuple[Any, ...]:
    """Return the columns that the page's parts depend on. The environment's revision grows with every served change."""
    columns = rollout.__dict__, rollout.environment.__dict__
    read = [{name: value for name, value in row.items() if not name.startswith("_")} for row in columns]
    return (*read, [(approval.pk, approval.at, approval.withdrawn_at) for approval in approvals])


_FIGURES = {"figures": "rollouts/_figures.html"}


@console_view("GET")
def rollout_figures(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show both arms and the charts. Summing the rows of a long rollout takes time, so these are polled less often."""
    rollout = rollout_for(request, pk)
    parts = live.rendered(request, _FIGURES, _figures(rollout))
    return live.fresh(request, parts, ended=rollout.state in ENDED)


@console_view("GET")
def rollout_blast_radius(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show the blast radius. After the start it reads many rows of shadow decisions, so the page loads it
    separately.
    """
    rollout = rollout_for(request, pk)
    context = {"rollout": rollout, "ahead": ahead_of(rollout)}
    if live.is_poll(request):
        return fragment(request, "rollouts/_blast_radius.html", context)
    crumbs = [*_trail(rollout), ("Rollout", address_of(rollout))]
    return page(request, "rollouts/blast_radius.html", context, title="Blast radius", crumbs=crumbs)


def _figures(rollout: Rollout) -> dict[str, Any]:
    arms = compare_arms(rollout)
    return {"rollout": rollout, "arms": arms, "charts": [*arms.charts, evidence_chart(rollout)]}


def _live(request: HttpRequest, rollout: Rollout, approvals: Sequence[Approval]) -> dict[str, Any]:
    offered = offers(request, rollout)
    evidence = presenters.evidence_of(rollout)
    counted = counting(rollout, approvals)
    return {
        "rollout": rollout,
        "offers": offered,
        "refused": [offer for offer in offered if offer.refusal],
        "steps": presenters.stage_steps(rollout),
        "caveat": presenters.comparison_caveat(rollout),
        "served": presenters.served_share(rollout),
        "serves": served_now(rollout),
        "guardrails": evidence.guardrails,
        "shadow": evidence.shadow,
        "history": history(rollout),
        "waits_for_two": _waits_for_two(rollout),
        "approvals": [
            (approval, approval.pk in counted, approval.binding == actions.binding(rollout, approval.stage))
            for approval in approvals
        ],
        "needs_approval": four_eyes_apply(rollout, rollout.environment)
        or any(stage.get("approval") for stage in rollout.stages),
        "engine": engine_seen(),
        "ended": rollout.state in ENDED,
        "may_edit": rollout.state in ENDED_WITHOUT_SUCCESS and may_edit(request, rollout.workload),
        "now": timezone.now(),
    }


def _waits_for_two(rollout: Rollout) -> str:
    """Return how many of two needed people have approved; empty if one is enough."""
    if rollout.state != State.AWAITING_APPROVAL or number_needed(rollout) < 2:
        return ""
    return four_eyes.missing_sentence(contributors(rollout), len(standing_approvals(rollout)))


def _trail(rollout: Rollout | None = None) -> list[Crumb]:
    trail = [("Rollouts", reverse("console:rollouts"))]
    if rollout is None:
        return trail
    return [*trail, (rollout.workload.name, reverse("console:workload", args=[rollout.workload.name]))]


def address_of(rollout: Rollout) -> str:
    return reverse("console:rollout", args=[rollout.pk])


# --- decide -------------------------------------------------------------------------------------------


@console_view("GET", "POST")
def act(request: HttpRequest, pk: UUID, name: str) -> HttpResponse:
    """Run one action: GET shows its form, POST executes it."""
    action = action_named(name)
    rollout = rollout_for(request, pk, role=action.role)
    form = _form_of(request, rollout, action)
    if moved := attempt(request, form, _as_seen(action.action), rollout):
        return done(request, said_of(action, moved), to=address_of(moved))
    context = {
        **form_texts(rollout, action),
        "form": form,
        "back": address_of(rollout),
        "action": request.path,
        "ahead": ahead_of(rollout) if action.shows_ahead else None,
    }
    if action.is_approval:
        context |= _rests_on(request, rollout)
    if request.headers.get("HX-Request"):
        return fragment(request, "rollouts/_act.html", context)
    trail, status = [*_trail(rollout), ("Rollout", address_of(rollout))], status_of(form)
    return page(request, "rollouts/act.html", context, title=action.label, crumbs=trail, status=status)


def _rests_on(request: HttpRequest, rollout: Rollout) -> dict[str, Any]:
    """Return the evidence for an approval. In a dialog on the rollout's page, leave out the figures that the
    page shows.
    """
    evidence = presenters.evidence_of(rollout)
    context = {
        "is_approval": True,
        "guardrails": evidence.guardrails,
        "shadow": evidence.shadow,
        "planned": presenters.planned_stages(rollout),
        "went_back": went_back(rollout.baseline, rollout.candidate, rollout.environment, timezone.now()),
    }
    whole_page = not request.headers.get("HX-Request")
    return context | (_figures(rollout) if rollout.started_at and whole_page else {"rollout": rollout})


def _form_of(request: HttpRequest, rollout: Rollout, action: RolloutAction) -> RolloutReasonForm:
    initial: dict[str, Any] = {"seen": rollout.version, **approval_binding(rollout, action)}
    kind = ApproveForm if "expected_binding" in initial else RolloutReasonForm
    if action.name == "amend":
        kind = AmendForm
        initial |= {"scheduled_for": rollout.scheduled_for} if rollout.scheduled_for else {}
    return kind(request.POST or None, initial=initial)


def _as_seen(action: Callable[..., Rollout]) -> Callable[..., Rollout]:
    """Wrap the action so that it is refused if the rollout has moved since the form was shown.

    A pause and a rollback are never refused for that: they act on the current state.
    """

    def act_on(rollout: Rollout, *, seen: int, **values: Any) -> Rollout:
        rollout.version = seen
        return action(rollout, **values)

    return act_on


@console_view("GET", "POST")
def propose(request: HttpRequest) -> HttpResponse:
    name = request.GET.get("workload", "")
    if not name:
        return _choose_workload(request)
    workload = workload_for(request, name, edit=True)
    places = _may_propose_in(request, workload)
    form = ProposeForm(workload, places, request.POST or None, initial=_asked(request, places))
    if rollout := attempt(request, form, _propose, workload):
        return done(request, _said(rollout), to=address_of(rollout))
    open_ones = visible(request).filter(workload=workload).exclude(state__in=sorted(ENDED))
    context = {
        "workload": workload,
        "form": form,
        "plans": Plan.objects.all(),
        "ahead": _ahead(workload, places, form),
        "open_ones": open_ones[:5],
        "serve_at": "" if places else serving_address(request, workload),
    }
    trail, status = _trail(), status_of(form)
    return page(request, "rollouts/propose.html", context, title="Propose", crumbs=trail, status=status)


def _ahead(workload: Workload, places: QuerySet[Environment], form: ProposeForm) -> Ahead | None:
    """Show the blast radius for the version and environment that the link names or that were posted.

    Without an environment, use the one that the form selects: the first.
    """
    given = form.cleaned_data if form.is_bound else form.initial
    candidate, environment = given.get("candidate"), given.get("environment")
    environment = environment or places.first()
    if candidate is None or environment is None or environment not in places:
        return None
    return ahead_of_candidate(environment, workload, candidate)


def _choose_workload(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    served = Workload.objects.filter(assignments__environment__in=environments_of(request)).distinct()
    if not may(request, Role.ADMIN, ""):
        served = served.filter(owner__members=person(request))
    chosen = served if may(request, Role.EDITOR, permissions.ANYWHERE) else served.none()
    return page(request, "rollouts/choose.html", {"workloads": chosen}, title="Propose", crumbs=_trail())


def _may_propose_in(request: HttpRequest, workload: Workload) -> QuerySet[Environment]:
    """Return the environments where this person is an editor and the workload is served."""
    served = Environment.objects.filter(assignments__workload=workload).order_by("name")
    if asked := request.POST.get("environment", ""):
        chosen = environment_for(request, asked)
        if served.filter(pk=chosen.pk).exists():
            # It was not offered, so answer with a refusal instead of a form error.
            must(request, Role.EDITOR, chosen.name)
    return served.filter(name__in=[e.name for e in served if may(request, Role.EDITOR, e.name)])


def _asked(request: HttpRequest, places: QuerySet[Environment]) -> dict[str, Any]:
    """Return initial values from the link: `candidate` by number, `environment` by name, one of the `places`."""
    environment = places.filter(name=request.GET.get("environment", "")).first()
    versions = PolicyVersion.objects.filter(workload__name=request.GET["workload"])
    if place := environment or places.first():
        # What this place serves already is no candidate.
        served = place.assignments.filter(workload__name=request.GET["workload"])
        versions = versions.exclude(pk__in=served.values("baseline"))
    asked = versions.filter(number=_number(request.GET.get("candidate", ""))).first()
    candidate = asked or versions.order_by("-number").first()
    plan = Plan.objects.filter(name="standard").first()
    return {"candidate": candidate, "environment": environment, "plan": plan}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _propose(workload: Workload, *, environment: Environment, **values: Any) -> Rollout:
    return actions.propose_rollout(environment, workload, values.pop("candidate"), **values)


def _said(rollout: Rollout) -> str:
    if rollout.state == State.AWAITING_APPROVAL:
        return "Proposed. It is waiting for another person's approval."
    return f"Proposed. {rollout.environment.name} requires no approval: an operator can start it."


urlpatterns = [
    path("rollouts/", rollouts, name="rollouts"),
    path("rollouts/propose/", propose, name="propose"),
    path("rollouts/<uuid:pk>/", rollout_page, name="rollout"),
    path("rollouts/<uuid:pk>/figures/", rollout_figures, name="rollout_figures"),
    path("rollouts/<uuid:pk>/blast-radius/", rollout_blast_radius, name="blast_radius"),
    path("rollouts/<uuid:pk>/<slug:name>/", act, name="act"),
]
