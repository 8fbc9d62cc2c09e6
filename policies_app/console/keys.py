"""Pages of keys: issue (the text is shown once, with instructions), rotate, revoke, last use."""

from datetime import timedelta
from typing import Any

from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.access import actions, permissions
from controlplane.access.api import key_for
from controlplane.access.models import Key, Role
from controlplane.access.selectors import environments_administered_by, keys_managed_by
from controlplane.core import clock
from controlplane.web.pages import (
    Crumb,
    actor,
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
from policies_app.console.lookups import environments_of
from policies_app.console.setup_forms import KeyForm, RotateForm
from policies_app.forms import ReasonForm
from policies_app.models import Workload

# The keys that work first, on PostgreSQL too, which sorts null last.
_ORDER = (F("revoked_at").asc(nulls_first=True), "-created_at", "-pk")


@console_view("GET")
def keys(request: HttpRequest) -> HttpResponse:
    """List the keys that this person may manage: those of environments they administer, and their own."""
    must(request, None, permissions.ANYWHERE)
    rows = paginated(request, keys_managed_by(actor(request)).order_by(*_ORDER))
    listed = [(key, _state(key), _may_rotate(request, key)) for key in rows]
    return page(request, "setup/keys.html", {"rows": rows, "listed": listed}, title="Keys")


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= clock.now() else "live"


def _may_rotate(request: HttpRequest, key: Key) -> bool:
    return _state(key) == "live" and key.user_id in (None, person(request).pk)


@console_view("GET", "POST")
def new_key(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    places = [environment.name for environment in environments_of(request)]
    names = list(Workload.objects.values_list("name", flat=True))
    form = KeyForm(places, names, request.POST or None, initial=request.GET.dict())
    if issued := attempt(request, form, _issue, request):
        return _shown_once(request, *issued)
    context = {"form": form, "back": _listed(), "may_add_routers": _administers_any(request)}
    status = status_of(form)
    return page(request, "setup/new_key.html", context, title="New key", crumbs=_trail(), status=status)


def _administers_any(request: HttpRequest) -> bool:
    return environments_administered_by(actor(request)) != set()


def _issue(request: HttpRequest, **values: Any) -> tuple[Key, str]:
    """Issue a key. A router key requires an admin of its environment; an admin key acts for the person who creates
    it."""
    if values["kind"] == Key.Kind.ROUTER:
        permissions.require_role(person(request), Role.ADMIN, values["environment"])
        return actions.issue_key(**values)
    return actions.issue_key(user=person(request), **values)


@console_view("GET", "POST")
def rotate_key(request: HttpRequest, key_id: str) -> HttpResponse:
    key = key_for(actor(request), key_id)
    form = RotateForm(request.POST or None)
    if issued := attempt(request, form, _rotate, key):
        return _shown_once(request, *issued)
    about = f"A new key with the same rights follows “{key.label}”. Its text is shown once."
    return _sheet(request, form, heading=f"Rotate {key.label}", about=about, button="Rotate it")


def _rotate(key: Key, *, overlap_hours: int, **values: Any) -> tuple[Key, str]:
    return actions.rotate_key(key.key_id, overlap=timedelta(hours=overlap_hours), **values)


@console_view("GET", "POST")
def revoke_key(request: HttpRequest, key_id: str) -> HttpResponse:
    key = key_for(actor(request), key_id)
    form = ReasonForm(request.POST or None)
    if attempt(request, form, actions.revoke_key, key.key_id):
        return done(
            request, f"“{key.label}” is revoked: requests with it are refused from now on.", to=_listed()
        )
    about = "It ends at once and for good. A router that uses it keeps its current policy, and can no longer report."
    return _sheet(request, form, heading=f"Revoke {key.label}", about=about, button="Revoke it", danger=True)


def _sheet(request: HttpRequest, form: Any, *, heading: str, **context: Any) -> HttpResponse:
    context |= {"heading": heading, "form": form, "back": _listed()}
    status = status_of(form)
    return page(request, "console/sheet.html", context, title=heading, crumbs=_trail(), status=status)


def _shown_once(request: HttpRequest, key: Key, text: str) -> HttpResponse:
    """Show the key's text. There is no redirect: the text is not stored, so only this response has it."""
    workload = next(iter(key.workloads), "") or Workload.objects.values_list("name", flat=True).first()
    context = {
        "key": key,
        "text": text,
        "server": request.build_absolute_uri("/").rstrip("/"),
        "workload": workload or "support-summaries",
        "may_see_fleet": key.environment and may(request, Role.VIEWER, key.environment),
    }
    return page(request, "setup/key_shown.html", context, title="The key", crumbs=_trail(), status=201)


def _listed() -> str:
    return reverse("console:keys")


def _trail() -> list[Crumb]:
    return [("Keys", _listed())]
