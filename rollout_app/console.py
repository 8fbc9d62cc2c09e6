"""Pages of rollouts: propose one, watch it, decide."""

from typing import Any
from uuid import UUID

from django import forms
from django.db.models import Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.errors import NotFound, RoleMissing
from controlplane.pages import (
    Crumb,
    attempt,
    console_view,
    done,
    may,
    must,
    page,
    paginated,
    seen,
    status_of,
)
from policies_app.console import environments_of, workload_for
from policies_app.models import Environment, Workload
from rollout_app import actions, overview
from rollout_app.doors import door_for, offers, sheet, why_not
from rollout_app.forms import ApproveForm, ProposeForm, ReasonForm
from rollout_app.models import Rollout
from rollout_app.states import ACTIVE, ENDED, State

_FILTERS = {
    "active": ("Under way", Q(state__in=sorted(ACTIVE))),
    "waiting": ("Waiting", Q(state__in=[State.DRAFT, State.AWAITING_APPROVAL, State.SCHEDULED])),
    "ended": ("Ended", Q(state__in=sorted(ENDED))),
    "": ("All", Q()),
}


# --- gate ---------------------------------------------------------------------------------------------


def visible(request: HttpRequest) -> QuerySet[Rollout]:
    """The rollouts of the environments that this person may see."""
    rows = Rollout.objects.select_related("environment", "workload", "baseline", "candidate")
    heavy = ("evidence", "baseline__canonical", "candidate__canonical")
    return seen(request, rows.defer(*heavy), by="environment__name")


def rollout_for(request: HttpRequest, pk: UUID) -> Rollout:
    rollout = visible(request).filter(pk=pk).first()
    if rollout is None:
        raise NotFound("There is no such rollout, or it is not yours to see.")
    return rollout


# --- look ---------------------------------------------------------------------------------------------


@console_view("GET")
def rollouts(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    chosen = request.GET.get("show", "")
    _, condition = _FILTERS.get(chosen, _FILTERS[""])
    found = visible(request).filter(condition)
    if workload := request.GET.get("workload"):
        found = found.filter(workload__name=workload)
    rows = paginated(request, found)
    tabs = [(key, label) for key, (label, _) in _FILTERS.items()]
    return page(
        request,
        "rollouts/rollouts.html",
        title="Rollouts",
        rows=rows,
        listed=[(rollout, overview.served_share(rollout)) for rollout in rows],
        tabs=tabs,
        chosen=chosen,
    )


@console_view("GET")
def rollout_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The whole page, or, for the page itself every two seconds, only what moves."""
    rollout = rollout_for(request, pk)
    context = _live(request, rollout)
    if request.headers.get("HX-Request"):
        return fragment(request, "rollouts/_live.html", **context)
    title = f"v{rollout.baseline.number} → v{rollout.candidate.number}"
    return page(request, "rollouts/rollout.html", title=title, crumbs=_trail(rollout), **context)


def _live(request: HttpRequest, rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout": rollout,
        "offers": offers(request, rollout),
        "ladder": overview.ladder(rollout),
        "served": overview.served_share(rollout),
        "arms": overview.arms(rollout),
        "verdicts": overview.verdicts(rollout),
        "transitions": overview.history(rollout),
        "approvals": list(rollout.approvals.all()),
        "ended": rollout.state in ENDED,
    }


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
    """One of the doors: GET shows its form (beside the page, when the page asks), POST goes through it."""
    rollout, door = rollout_for(request, pk), door_for(name)
    must(request, door.role, rollout.environment.name)
    form = _form_of(request, rollout, name)
    if moved := attempt(request, form, _as_seen(rollout, door.action)):
        return done(request, door.said, to=address_of(moved))
    context = {**sheet(rollout, door), "form": form, "back": address_of(rollout), "action": request.path}
    if request.headers.get("HX-Request"):
        return fragment(request, "console/_sheet.html", **context)
    trail = [*_trail(rollout), ("Rollout", address_of(rollout))]
    return page(request, "console/sheet.html", title=door.label, crumbs=trail, status=status_of(form), **context)
