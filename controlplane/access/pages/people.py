"""Pages of people: accounts, roles, invitations."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.access import actions, selectors
from controlplane.access.actions import second_person
from controlplane.access.models import Membership, Role
from controlplane.access.pages.forms import GrantForm, WhyForm, administered
from controlplane.audit import sentences
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import NotFound
from controlplane.web.pages import (
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

# What an admin can do to an account: the action, and the text of its page.
CHANGES: dict[str, tuple[Callable[..., User], dict[str, Any]]] = {
    "deactivate": (
        actions.deactivate_person,
        {
            "title": "Deactivate {}",
            "about": "Their sessions and keys end at once, and their approvals no longer count.",
            "button": "Deactivate",
            "done": "{} is deactivated.",
            "danger": True,
        },
    ),
    "activate": (
        actions.activate_person,
        {
            "title": "Activate {}",
            "about": "They can log in again, with the roles that they still hold. Their old keys stay revoked.",
            "button": "Activate",
            "done": "{} is active.",
        },
    ),
    "log-out": (
        actions.end_sessions,
        {
            "title": "Log {} out everywhere",
            "about": "They can log in again at once.",
            "button": "Log out",
            "done": "{} is logged out everywhere.",
        },
    ),
    "remove-second-factor": (
        actions.remove_second_factor,
        {
            "title": "Remove the second factor of {}",
            "about": "For somebody who lost it. Make sure that the request really comes from them: "
            "from now on their password alone logs them in.",
            "button": "Remove",
            "done": "{} has no second factor now.",
            "danger": True,
        },
    ),
    "withdraw-superuser": (
        actions.withdraw_superuser,
        {
            "title": "Withdraw the superuser rights of {}",
            "about": "They are no longer an administrator of the instance, but keep their roles.",
            "button": "Withdraw",
            "done": "{} is no longer an administrator of the instance.",
            "danger": True,
        },
    ),
}


@console_view("GET")
def people(request: HttpRequest) -> HttpResponse:
    must(request, Role.ADMIN, None)
    found = selectors.people_for(person(request))
    if asked := request.GET.get("q", "").strip()[:120]:
        found = found.filter(
            Q(username__icontains=asked) | Q(first_name__icontains=asked) | Q(email__icontains=asked)
        )
    rows = paginated(request, found)
    columns = administered(selectors.environments_administered_by(person(request)))
    context = {
        "rows": rows,
        "columns": columns,
        "table": [(user, [(name, _roles(user, name)) for name in columns]) for user in rows],
        "invitations": selectors.invitations_for(person(request)).filter(accepted_at=None, revoked_at=None)[
            :50
        ],
    }
    return page(request, "people/people.html", context, title="People")


def _roles(user: User, environment: str) -> list[str]:
    return [held.role for held in user.memberships.all() if held.environment == environment]


@console_view("GET", "POST")
def person_page(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one person; a post grants them a role."""
    must(request, Role.ADMIN, request.POST.get("environment", "") if request.method == "POST" else None)
    user = selectors.person_for(person(request), pk)
    places = administered(selectors.environments_administered_by(person(request)))
    form = GrantForm(places, request.POST or None)
    if message := attempt(request, form, _grant_or_ask, user):
        return done(request, message, to=address_of(user))
    context = {
        "person": user,
        "form": form,
        "keys": selectors.keys_managed_by(actor(request)).filter(user=user, revoked_at=None).order_by("-pk"),
        "now": clock.now(),
        "may_close": may(request, Role.ADMIN, ""),
        "entries": sentences.told(
            list(
                selectors.entries_visible_to(actor(request))
                .defer("body")
                .filter(target_kind="user", target_id=str(user.pk))[:10]
            )
        ),
    }
    return page(
        request, "people/person.html", context, title=str(user), crumbs=_trail(), status=status_of(form)
    )


def _grant_or_ask(
    user: User, *, actor: Actor, environment: str, role: str, reason: str, break_glass: bool
) -> str:
    """Grant the role, or request it if it needs a second person. Return a message."""
    if second_person.takes_two(role, environment, actor=actor) and not break_glass:
        actions.request_role(user, role, environment, actor=actor, reason=reason)
        return "Requested. Another person must approve it: see Changes."
    actions.grant_role(user, role, environment, actor=actor, reason=reason, break_glass=break_glass)
    return f"{user} now has the role."


@console_view("GET", "POST")
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    must(request, Role.ADMIN, None)
    found = Membership.objects.select_related("user").filter(pk=pk).first()
    if found is None or not may(request, Role.ADMIN, found.environment):
        raise NotFound("There is no such role, or you may not withdraw it.")
    form = WhyForm(request.POST or None)
    if attempt(request, form, _withdraw, found):
        return done(request, f"{found.user} is no longer {found.role}.", to=address_of(found.user))
    texts = {
        "title": f"Withdraw the role {found.role} from {found.user}",
        "about": f"In {found.environment or 'every environment'}, from their next request on.",
        "button": "Withdraw",
        "danger": True,
    }
    return _sheet(request, form, texts, found.user)


def _withdraw(membership: Membership, **values: Any) -> bool:
    actions.withdraw_role(membership, **values)
    return True


@console_view("GET", "POST")
def change_person(request: HttpRequest, pk: int, change: str) -> HttpResponse:
    must(request, Role.ADMIN, "")
    user = selectors.person_for(person(request), pk)
    if change not in CHANGES:
        raise NotFound("There is no such page.")
    action, texts = CHANGES[change]
    form = WhyForm(request.POST or None)
    if attempt(request, form, action, user):
        return done(request, texts["done"].format(user), to=address_of(user))
    return _sheet(request, form, texts | {"title": texts["title"].format(user)}, user)


def _sheet(request: HttpRequest, form: forms.Form, texts: dict[str, Any], user: User) -> HttpResponse:
    context = {**texts, "heading": texts["title"], "form": form, "back": address_of(user)}
    trail = [*_trail(), (str(user), address_of(user))]
    return page(
        request, "console/sheet.html", context, title=texts["title"], crumbs=trail, status=status_of(form)
    )


def address_of(user: User) -> str:
    return reverse("console:person", args=[user.pk])


def _trail() -> list[tuple[str, str]]:
    return [("People", reverse("console:people"))]
