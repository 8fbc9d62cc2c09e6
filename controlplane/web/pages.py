"""What every page of the console shares: who may open it, how it is drawn, how a refusal is shown.

A view is a guard, a form, an action, a response:

    @console_view("GET", "POST")
    def pin(request: HttpRequest, name: str) -> HttpResponse:
        assignment = assignment_for(request, name, role=Role.OPERATOR)
        form = PinForm(request.POST or None)
        if attempt(request, form, actions.pin, assignment):
            return done(request, "Pinned.", to=assignment.workload)
        return page(request, "policies/pin.html", {"form": form}, title="Pin")
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django_htmx.http import HttpResponseClientRefresh

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core.actors import Actor
from controlplane.core.errors import NotFound, PointsmanError, StaleVersion
from controlplane.web import refused_writes

P = ParamSpec("P")
T = TypeVar("T")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]
Crumb = tuple[str, str]  # label, address


def console_view(*methods: str) -> Callable[[View[P]], View[P]]:
    """Open to people who are logged in, with these methods; an error of ours becomes a page, never a 500."""

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            if not request.user.is_authenticated:
                return _to_login(request)
            try:
                response = view(request, *args, **kwargs)
            except PointsmanError as error:
                keep_refusal(request, error)
                response = refused(request, error)
            # Figures of a minute ago, shown by the Back button, would be taken for those of now.
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        guarded.methods = methods  # type: ignore[attr-defined]  # for the test that asks each of them
        return cast("View[P]", guarded)

    return decorate


def _to_login(request: HttpRequest) -> HttpResponse:
    # A fragment that polls must not swap the login form into the page: the whole page goes there.
    if request.headers.get("HX-Request"):
        return HttpResponseClientRefresh()
    if BY_SCRIPT in request.headers:
        # The page stays as it is, with what was typed: the person signs in beside it and sends the form again.
        return HttpResponse("Sign in again.", status=401, content_type="text/plain")
    return redirect_to_login(request.get_full_path(), reverse("console:login"))


def person(request: HttpRequest) -> User:
    """Who is logged in. Only inside `console_view`."""
    return cast("User", request.user)


def actor(request: HttpRequest) -> Actor:
    return Actor.of_user(person(request))


def page(
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any],
    *,
    title: str,
    crumbs: Sequence[Crumb] = (),
    status: int = 200,
) -> HttpResponse:
    """A whole page: the site's frame, its trail of `crumbs` (each with its address), and `context`."""
    frame = admin.site.each_context(request)
    return render(request, template, {**frame, "title": title, "crumbs": crumbs, **context}, status=status)


def fragment(
    request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200
) -> HttpResponse:
    """A part of a page, for htmx to put in its place: without the frame, and so without its queries."""
    return render(request, template, dict(context), status=status)


def refused(request: HttpRequest, error: PointsmanError) -> HttpResponse:
    return page(request, "console/refused.html", {"error": error}, title=error.title, status=error.status)


def keep_refusal(request: HttpRequest, error: PointsmanError) -> None:
    """An attempt that was refused is an entry of the audit log, once."""
    match = request.resolver_match
    refused_writes.keep(
        error,
        method=str(request.method),
        path=request.path,
        named=match.kwargs if match else {},
        actor=lambda: actor(request),
    )


BY_SCRIPT = "X-Pointsman-Form"  # the console's script sent the form, and stays on the page if it fails


def done(request: HttpRequest, message: str, *, to: str) -> HttpResponse:
    """After a write: say it, and go to where it shows. `to` is an address."""
    messages.success(request, message)
    if BY_SCRIPT in request.headers:
        # A redirect would be followed out of the script's sight, and the message shown to nobody.
        return HttpResponse(status=204, headers={"X-Pointsman-Location": resolve_url(to)})
    return redirect(to)


def attempt(
    request: HttpRequest, form: forms.BaseForm, action: Callable[..., T], *args: Any, **fixed: Any
) -> T | None:
    """Run `action` with a posted form's values as this person; None when there is nothing to show for it.

    A refusal becomes the form's error, beside the field that it is about where it names one: what was typed stays,
    and the sentence says what to do.
    """
    if request.method != "POST" or not form.is_valid():
        return None
    try:
        return action(*args, actor=actor(request), **{**form.cleaned_data, **fixed})
    except NotFound:
        raise  # what the form is about is gone: there is nothing to type anew
    except PointsmanError as error:
        keep_refusal(request, error)
        _show(form, error)
        return None


def _show(form: forms.BaseForm, error: PointsmanError) -> None:
    problems = error.extra.get("problems", [])
    form.problems = problems  # type: ignore[attr-defined]  # a document's are shown beside its text
    form.stale = isinstance(error, StaleVersion)  # type: ignore[attr-defined]  # what is saved now is shown, too
    beside = [problem for problem in problems if problem.get("path") in form.fields]
    for problem in beside:
        form.add_error(problem["path"], problem["message"])
    if len(beside) < len(problems) or not problems:
        form.add_error(None, error.detail)


def status_of(form: forms.BaseForm) -> int:
    """422 for a form that was refused, so that scripts and tests need not read the page."""
    return 422 if form.is_bound and form.errors else 200


# --- what one may see ---------------------------------------------------------------------------------


def may(request: HttpRequest, role: Role, environment: str | None) -> bool:
    """Whether this person holds a role in an environment (`ANYWHERE`: in any); read once a request."""
    holds = request.__dict__.get("_roles")
    if holds is None:
        holds = request.__dict__["_roles"] = permissions.roles_held(person(request))
    return bool(holds(role, environment))


def must(request: HttpRequest, role: Role | None, environment: str | None) -> None:
    """404 for what one may not see at all; `RoleMissing` for what one sees and may not do."""
    if not may(request, Role.VIEWER, environment):
        raise NotFound("There is no such page, or it is not yours to see.")
    if role is not None and not may(request, role, environment):
        permissions.require_role(person(request), role, environment)


def paginated(request: HttpRequest, rows: "QuerySet[Any]", size: int = 50) -> "Page[Any]":
    return Paginator(rows, size).get_page(request.GET.get("page"))
