"""Pages of changes that need a second person."""

from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.access import change_requests, four_eyes, permissions
from controlplane.access.models import ChangeRequest, Role
from controlplane.web.pages import (
    attempt,
    console_view,
    done,
    may,
    must,
    page,
    paginated,
    person,
    status_of,
)
from policies_app import actions
from policies_app.console.lookups import environment_for
from policies_app.forms import ReasonForm
from policies_app.four_eyes.actions import (
    approve_change,
    change_request_for,
    change_requests_for,
    request_four_eyes_off,
)


class ApproveChangeForm(ReasonForm):
    """Approves exactly what was shown: `expected_binding` is its hash."""

    expected_binding = forms.CharField(widget=forms.HiddenInput)


class FourEyesOffForm(ReasonForm):
    break_glass = forms.BooleanField(
        required=False,
        label="Switch it off now, without approval (break-glass)",
        help_text="Only in an emergency: every page, the audit log and the webhooks will say so.",
    )


@console_view("GET")
def change_list(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    rows = paginated(request, change_requests_for(person(request)))
    return page(request, "access/changes.html", {"rows": rows}, title="Changes")


@console_view("GET")
def change_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = change_request_for(person(request), pk)
    return _change_page(request, found, ApproveChangeForm(initial=_shown(found)), ReasonForm())


@console_view("POST")
def approve(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = change_request_for(person(request), pk, role=Role.APPROVER)
    form = ApproveChangeForm(request.POST)
    if approved := attempt(request, form, approve_change, found):
        return done(request, _message(approved), to=address_of(approved))
    return _change_page(request, found, form, ReasonForm())


@console_view("POST")
def reject(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = change_request_for(person(request), pk, role=Role.APPROVER)
    form = ReasonForm(request.POST)
    if attempt(request, form, change_requests.reject, found):
        return done(request, "Rejected. Nothing was changed.", to=address_of(found))
    return _change_page(request, found, ApproveChangeForm(initial=_shown(found)), form)


@console_view("POST")
def withdraw(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = change_request_for(person(request), pk)
    form = ReasonForm(request.POST)
    if attempt(request, form, change_requests.withdraw, found):
        return done(request, "Withdrawn.", to=address_of(found))
    return _change_page(request, found, ApproveChangeForm(initial=_shown(found)), form)


@console_view("GET", "POST")
def four_eyes_off(request: HttpRequest, name: str) -> HttpResponse:
    environment = environment_for(request, name, role=Role.ADMIN)
    form = FourEyesOffForm(request.POST or None)
    if outcome := attempt(request, form, _switch_off_or_ask, environment):
        return done(request, outcome[0], to=outcome[1])
    title = f"Switch four eyes off in {name}"
    context = {
        "form": form,
        "heading": title,
        "about": "Another person must approve it. Rollouts that were proposed before still need their approval.",
        "button": "Request it",
        "back": reverse("console:fleet_of", args=[name]),
        "danger": True,
    }
    return page(request, "console/sheet.html", context, title=title, status=status_of(form))


def _switch_off_or_ask(environment: Any, *, break_glass: bool, **values: Any) -> tuple[str, str]:
    if break_glass:
        edited = actions.edit_environment(environment, break_glass=True, four_eyes=False, **values)
        return f"{edited.name} no longer requires a second person.", reverse(
            "console:fleet_of", args=[edited.name]
        )
    asked = request_four_eyes_off(environment, **values)
    return "Requested. Another person must approve it.", address_of(asked)


_TITLES = {"assignment.serve_first": "Serve a version", "membership.grant": "Give a role"}


def _change_page(
    request: HttpRequest, found: ChangeRequest, approving: ApproveChangeForm, ending: ReasonForm
) -> HttpResponse:
    mine = str(person(request).pk) in found.contributors
    agreed = [approval["user_id"] for approval in found.approvals]
    context = {
        "change": found,
        "approving": approving,
        "ending": ending,
        "needed": four_eyes.approvals_needed(found.contributors),
        "mine": mine,
        # Show a refused approval's form again, with the reason.
        "may_approve": approving.is_bound
        or (
            may(request, Role.APPROVER, found.environment)
            and not mine
            and str(person(request).pk) not in agreed
        ),
        "may_reject": may(request, Role.APPROVER, found.environment),
    }
    crumbs = [("Changes", reverse("console:changes"))]
    status = max(status_of(approving), status_of(ending))
    return page(
        request,
        "access/change.html",
        context,
        title=_TITLES.get(found.action, "Four eyes off"),
        crumbs=crumbs,
        status=status,
    )


def _shown(found: ChangeRequest) -> dict[str, str]:
    return {"expected_binding": change_requests.binding(found)}


def _message(approved: ChangeRequest) -> str:
    if approved.state == ChangeRequest.State.APPLIED:
        return "Approved and applied."
    return "Approved. One more approver is needed."


def address_of(found: ChangeRequest) -> str:
    return reverse("console:change", args=[found.pk])


def waiting(request: HttpRequest) -> tuple[list[ChangeRequest], list[ChangeRequest]]:
    """Return the changes that this person can approve, and their own that wait for somebody else."""
    rows = list(change_requests_for(person(request)).filter(state=ChangeRequest.State.WAITING))
    own = str(person(request).pk)
    to_approve = [
        change
        for change in rows
        if own not in change.contributors
        and own not in [approval["user_id"] for approval in change.approvals]
        and may(request, Role.APPROVER, change.environment)
    ]
    return to_approve, [change for change in rows if own in change.contributors]


urlpatterns = [
    path("changes/", change_list, name="changes"),
    path("changes/<uuid:pk>/", change_page, name="change"),
    path("changes/<uuid:pk>/approve/", approve, name="approve_change"),
    path("changes/<uuid:pk>/reject/", reject, name="reject_change"),
    path("changes/<uuid:pk>/withdraw/", withdraw, name="withdraw_change"),
    path("environments/<slug:name>/four-eyes-off/", four_eyes_off, name="four_eyes_off"),
]
