"""The fleet page: an environment's routers, who applied what, and who lags."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse

from controlplane.core import clock
from controlplane.web.pages import console_view, fragment, page
from policies_app.console.lookups import environment_for, environments_of
from policies_app.fleet import readback
from policies_app.models import Environment
from policies_app.snapshots import publish


@console_view("GET")
def fleet_page(request: HttpRequest, name: str = "") -> HttpResponse:
    """One environment's routers: who applied what, and who lags."""
    environments = environments_of(request)
    if not (name or environments):
        return page(request, "fleet/empty.html", {}, title="Fleet")
    environment = environment_for(request, name or environments[0].name)
    context = {"environment": environment, "environments": environments, **_fleet(environment)}
    if request.headers.get("HX-Request"):
        return fragment(request, "fleet/_live.html", context)
    return page(request, "fleet/fleet.html", context, title="Fleet")


def _fleet(environment: Environment) -> dict[str, Any]:
    """The routers seen in the last day, and which of them still poll, are up to date, refuse something."""
    now = clock.now()
    routers = list(environment.routers.filter(polled_at__gt=now - timedelta(days=1)).order_by("instance"))
    polling = [router for router in routers if router.polled_at >= now - readback.SEEN_WITHIN]
    view = readback.view(environment, environment.revision)
    refusals = defaultdict(list)
    for refusal in view.rejected:
        refusals[refusal.router].append(refusal)
    return {
        "routers": routers,
        "polling": {router.pk for router in polling},
        "revisions": {router.pk: readback.applied(router, now).revision for router in routers},
        "current": {router.pk for router in polling if router.instance not in view.stragglers},
        "refusals": dict(refusals),
        "published": next(iter(publish.states(environment.pk)), None),
    }


def fleets(environments: Iterable[Environment]) -> list[tuple[Environment, readback.FleetView]]:
    """Each environment with how far its present revision has come."""
    return [(environment, readback.view(environment, environment.revision)) for environment in environments]
