"""The console site under /console/: its URLs and its navigation."""

from typing import Any

from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, reverse
from unfold.sites import UnfoldAdminSite

from controlplane import home
from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.access.pages import urls as people
from controlplane.audit import pages as audit
from controlplane.notifications import pages as notifications
from controlplane.web.pages import may
from policies_app.console import urls as policies
from policies_app.four_eyes import pages as changes
from rollout_app.console import rehearsal_pages, review_pages
from rollout_app.console import views as rollouts
from rollout_app.console.setup import margins, plans
from rollout_app.engine.states import State


class ConsoleSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold carries no types
    """Django's admin site, used only as a frame around our own pages. `controlplane.access.sign_in` handles sign-in.

    No model is registered: Django's forms would write rows without the actions and the audit log.
    """

    enable_nav_sidebar = True

    def __init__(self, name: str = "console") -> None:
        super().__init__(name)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Drop the theme's colour variables: they would become an inline style element, and theme.css already has
        them."""
        context: dict[str, Any] = super().each_context(request)
        opened = notifications.open_break_glass(request)
        return context | {"colors": None, "border_radius": None, "open_break_glass": opened}

    def has_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        pages = [
            *policies.urlpatterns,
            *changes.urlpatterns,
            *review_pages.urlpatterns,
            *rehearsal_pages.urlpatterns,
        ]
        pages += [*rollouts.urlpatterns, *audit.urlpatterns, *people.urlpatterns, *notifications.urlpatterns]
        pages += [*plans.urlpatterns, *margins.urlpatterns]
        return [*home.urlpatterns, *pages, *super().get_urls()]

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """One item per kind of object. An item is active when the page's path begins with its link."""
        seen = rollouts.visible(request)
        moving = seen.filter(state__in=[State.AWAITING_APPROVAL, State.ROLLING_BACK]).count()
        setup = [
            ("Environments", "dns", "environments", 0),
            ("Models", "deployed_code", "models", 0),
            ("Plans", "stairs", "plans", 0),
            ("Keys", "key", "keys", 0),
        ]
        items = [
            ("Home", "home", "index", 0),
            ("Workloads", "account_tree", "workloads", 0),
            ("Rollouts", "alt_route", "rollouts", moving),
            ("Review", "monitoring", "review", 0),
            ("Fleet", "router", "fleet", 0),
            ("Audit", "history_edu", "audit", 0),
        ]
        if may(request, Role.ADMIN, permissions.ANYWHERE):
            setup.append(("People", "group", "people", 0))
        if may(request, Role.ADMIN, ""):
            setup.append(("Notifications", "notifications", "notifications", 0))
        groups = [("", items), ("Set up", setup)]
        return [
            {"title": title, "items": [_navigation_item(request, *item) for item in group]}
            for title, group in groups
        ]


def _navigation_item(request: HttpRequest, title: str, icon: str, name: str, badge: int) -> dict[str, Any]:
    link = reverse(f"console:{name}")
    active = request.path == link if name == "index" else request.path.startswith(link)
    item = {"title": title, "icon": icon, "link": link, "active": active, "has_permission": True}
    return item | ({"badge": badge, "badge_variant": "warning"} if badge else {})
