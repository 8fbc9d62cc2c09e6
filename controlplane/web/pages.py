"""What all pages of the console share: access, rendering, and how errors are shown.

A view is a guard, a form, an action and a response, as `policies_app.console.serving.pin`. How to add one is in
`docs/how-to/add-a-page.md`.
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
    """Restrict a view to signed-in people and these methods. A `PointsmanError` becomes a page, never a 500."""

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
            # The Back button must not show old figures as if they were current.
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        guarded.methods = methods  # type: ignore[attr-defined]  # for a test that tries each method
        return cast("View[P]", guarded)

    return decorate


def _to_login(request: HttpRequest) -> HttpResponse:
    # A polling fragment must not swap the login form into the page: reload the whole page instead.
    if request.headers.get("HX-Request"):
        return HttpResponseClientRefresh()
    if BY_SCRIPT in request.headers:
        # Keep the page and its input: the person logs in in another tab and sends the form again.
        return HttpResponse("Log in again.", status=401, content_type="text/plain")
    return redirect_to_login(request.get_full_path(), reverse("console:login"))


def person(request: HttpRequest) -> User:
    """Return the signed-in user. Only for use inside `console_view`."""
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
    """Render a whole page: the site's frame, the breadcrumbs (label and URL of each) and `context`."""
    frame = admin.site.each_context(request)
    return render(request, template, {**frame, "title": title, "crumbs": crumbs, **context}, status=status)


def fragment(
    request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200
) -> HttpResponse:
    """Render a part of a page for htmx to swap in, without the frame and its queries."""
    return render(request, template, dict(context), status=status)


def refused(request: HttpRequest, error: PointsmanError) -> HttpResponse:
    return page(request, "console/refused.html", {"error": error}, title=error.title, status=error.status)


def keep_refusal(request: HttpRequest, error: PointsmanError) -> None:
    """Record a refused attempt in the audit log, once."""
    match = request.resolver_match
    refused_writes.keep(
        error,
        method=str(request.method),
        path=request.path,
        named=match.kwargs if match else {},
        actor=lambda: actor(request),
    )


# Set when the console's script sends the form; it stays on the page after an error.
BY_SCRIPT = "X-Pointsman-Form"


def done(request: HttpRequest, message: str, *, to: str) -> HttpResponse:
    """Finish a write: show `message` and redirect to the URL `to`."""
    messages.success(request, message)
    if BY_SCRIPT in request.headers:
        # The browser would follow a redirect without telling the script, and the message would be lost.
        return HttpResponse(status=204, headers={"X-Pointsman-Location": resolve_url(to)})
    return redirect(to)


def attempt(
    request: HttpRequest, form: forms.BaseForm, action: Callable[..., T], *args: Any, **fixed: Any
) -> T | None:
    """Run `action` with a posted form's values, as this person. Return None if it did not run or was refused.

    A refusal becomes a form error, next to the field that it names if there is one. The input stays, and the message
    says what to do.
    """
    if request.method != "POST" or not form.is_valid():
        return None
    try:
        return action(*args, actor=actor(request), **{**form.cleaned_data, **fixed})
    except NotFound:
        raise  # the subject of the form is gone: there is nothing to correct
    except PointsmanError as error:
        keep_refusal(request, error)
        _show(form, error)
        return None


def _show(form: forms.BaseForm, error: PointsmanError) -> None:
    problems = error.extra.get("problems", [])
    form.problems = problems  # type: ignore[attr-defined]  # shown next to a document's text
    form.stale = isinstance(error, StaleVersion)  # type: ignore[attr-defined]  # also show the saved version
    in_fields = [problem for problem in problems if problem.get("path") in form.fields]
    for problem in in_fields:
        form.add_error(problem["path"], problem["message"])
    if len(in_fields) < len(problems) or not problems:
        form.add_error(None, error.detail)


def status_of(form: forms.BaseForm) -> int:
    """Return 422 for a form with errors, so that scripts and tests need not parse the page."""
    return 422 if form.is_bound and form.errors else 200


# --- access ---------------------------------------------------------------------------------------------


def may(request: HttpRequest, role: Role, environment: str | None) -> bool:
    """Return whether this person holds a role in an environment (`ANYWHERE`: in any); read once per request."""
    holds = request.__dict__.get("_roles")
    if holds is None:
        holds = request.__dict__["_roles"] = permissions.roles_held(person(request))
    return bool(holds(role, environment))


def must(request: HttpRequest, role: Role | None, environment: str | None) -> None:
    """Raise `NotFound` if this person may not see the environment, `RoleMissing` if they see it but lack `role`."""
    if not may(request, Role.VIEWER, environment):
        raise NotFound("There is no such page, or you may not see it.")
    if role is not None and not may(request, role, environment):
        permissions.require_role(person(request), role, environment)


def paginated(request: HttpRequest, rows: "QuerySet[Any]", size: int = 50) -> "Page[Any]":
    return Paginator(rows, size).get_page(request.GET.get("page"))
