"""Create and accept invitations: the link, its page, and the message if the link is no longer valid.

The token appears only in the first request's URL. It is replaced at once by its hash in the session, so it does not
stay in the browser history, in a Referer or in an audit entry.
"""

from typing import Any
from uuid import UUID

from allauth.account.internal.flows.login import perform_login, record_authentication
from allauth.account.models import Login
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from controlplane.access import actions, selectors
from controlplane.access.models import Invitation, Role
from controlplane.access.pages.forms import AcceptForm, InviteForm, WhyForm, administered, places_of
from controlplane.access.sign_in import company, invited
from controlplane.access.sign_in.frames import styled
from controlplane.core.errors import InvitationEnded, PointsmanError
from controlplane.web.pages import attempt, console_view, done, must, page, person, status_of


@console_view("GET", "POST")
def invite(request: HttpRequest) -> HttpResponse:
    """Show the form; after a post, show the link, once."""
    must(request, Role.ADMIN, None)
    for place in places_of(request.POST):
        must(request, Role.ADMIN, place)
    places = administered(selectors.environments_administered_by(person(request)))
    form = InviteForm(places, request.POST or None)
    trail = [("People", reverse("console:people"))]
    if made := attempt(request, form, actions.invite):
        invitation, token = made
        link = request.build_absolute_uri(reverse("invitation", args=[token]))
        context = {"invitation": invitation, "link": link}
        return page(request, "people/invited.html", context, title="Invitation", crumbs=trail)
    roles = [label.capitalize() for label in Role.labels]
    context = {"form": form, "roles": roles, "back": reverse("console:people")}
    return page(request, "people/invite.html", context, title="Invite", crumbs=trail, status=status_of(form))


@console_view("GET", "POST")
def revoke(request: HttpRequest, pk: UUID) -> HttpResponse:
    must(request, Role.ADMIN, None)
    invitation = selectors.invitation_for(person(request), pk)
    form = WhyForm(request.POST or None)
    if attempt(request, form, actions.revoke_invitation, invitation.pk):
        return done(request, "Revoked. The link no longer works.", to=reverse("console:people"))
    title = f"Revoke the invitation of {invitation.invited}"
    context = {
        "heading": title,
        "about": "The link stops working at once.",
        "button": "Revoke",
        "danger": True,
    }
    context |= {"form": form, "back": reverse("console:people")}
    return page(request, "console/sheet.html", context, title=title, status=status_of(form))


# --- accepting --------------------------------------------------------------------------------------


@never_cache
def open_link(request: HttpRequest, token: str) -> HttpResponse:
    invited.remember(request, token)
    return redirect("accept_invitation")


@never_cache
@sensitive_post_parameters("password", "again")
def accept(request: HttpRequest) -> HttpResponseBase:
    """Create an account, or add the roles to the account that is logged in."""
    try:
        invitation = invited.invitation_of(request)
        if request.user.is_authenticated:
            return _accept_as_oneself(request, invitation)
        return _make_account(request, invitation)
    except InvitationEnded as error:
        if request.method == "POST":
            invited.refuse(request, error)
        return _drawn(request, {"ended": error.detail}, status=410)


def _accept_as_oneself(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    user = request.user
    assert isinstance(user, User)  # noqa: S101 — it is authenticated
    if request.method != "POST":
        return _drawn(request, {"invitation": invitation, "oneself": user})
    actions.accept_as(invitation.token_sha256, user)
    invited.forget(request)
    return done(request, "You now have the roles.", to=reverse("console:account"))


def _make_account(request: HttpRequest, invitation: Invitation) -> HttpResponseBase:
    form = AcceptForm(request.POST or None)
    styled(form)
    if request.method == "POST" and form.is_valid():
        try:
            user = actions.accept_with_password(invitation.token_sha256, **form.cleaned_data)
        except InvitationEnded:
            raise
        except PointsmanError as error:
            invited.refuse(request, error)
            _show(form, error)
        else:
            invited.forget(request)
            record_authentication(request, user, method="password", username=user.username)
            login = Login(user=user, redirect_url=reverse("console:index"))
            response: HttpResponseBase = perform_login(request, login)
            return response
    return _drawn(request, {"invitation": invitation, "form": form}, status=status_of(form))


def _show(form: AcceptForm, error: PointsmanError) -> None:
    """Show each problem at its field, the others on top."""
    problems = error.extra.get("problems", [])
    for problem in problems:
        form.add_error(problem["path"], problem["message"])
    if not problems:
        form.add_error(None, error.detail)


def _drawn(request: HttpRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    frame = {**admin.site.each_context(request), "title": "Invitation", "company": company.name()}
    return render(request, "people/accept.html", {**frame, **context}, status=status)
