"""The fleet page: an environment's routers, what they have applied, and which are behind."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse

from controlplane.access import permissions
from controlplane.core import clock
from controlplane.web import live
from controlplane.web.pages import console_view, must, page
from policies_app.console.lookups import environment_for, environments_of
from policies_app.fleet.listening import read_hearing
from policies_app.fleet.readback import (
    Fleet,
    Readback,
    Refusal,
    applied,
    has_left,
    oldest_poll,
    read_fleet,
    silent_before,
)
from policies_app.models import Assignment, Environment, Router
from policies_app.snapshots import publish

SHOWN_FOR = timedelta(days=1)
PARTLY_SHOWN_FOR = timedelta(hours=2)
CLOCK_SHOWN_FOR = timedelta(minutes=15)
PER_PAGE = 100
# In the order of the page: states that need attention first.
STATES = {"rejecting": "bad", "behind": "warn", "silent": "quiet", "starting": "quiet", "up to date": "good"}
_RANK = list(STATES)


@dataclass(frozen=True, slots=True)
class RouterRow:
    """A router on the page. `behind` is in revisions; None if unknown."""

    router: Router
    state: str
    revision: int | None
    behind: int | None
    refusals: list[Refusal] = field(default_factory=list)
    clock_ahead_s: float | None = None
    reports_partly: bool = False

    @property
    def tone(self) -> str:
        return STATES[self.state]


@console_view("GET")
def fleet_page(request: HttpRequest, name: str = "") -> HttpResponse:
    """Show one environment's routers, what they have applied, and which are behind."""
    must(request, None, permissions.ANYWHERE)
    environments = environments_of(request)
    if not (name or environments):
        return page(request, "fleet/empty.html", {}, title="Fleet")
    environment = environment_for(request, name or environments[0].name)
    context = {"environment": environment, "environments": environments, **_fleet(request, environment)}
    parts = live.rendered(request, {"fleet": "fleet/_live.html"}, context)
    if live.is_poll(request):
        return live.fresh(request, parts)
    return live.live_page(request, "fleet/fleet.html", parts, context, title="Fleet")


def _fleet(request: HttpRequest, environment: Environment) -> dict[str, Any]:
    """Read the routers once: with thousands of them, that is most of the page's time."""
    now, hearing, pinned = clock.now(), read_hearing(), list(_pinned(environment))
    back_to = min((each.changed_at for each in pinned), default=now)
    oldest = min(now - SHOWN_FOR, oldest_poll(hearing, now, back_to))
    known = list(environment.routers.filter(polled_at__gte=oldest))
    fleet = read_fleet(environment, now=now, back_to=back_to, hearing=hearing, known=known)
    rows = _rows(environment, fleet, known)
    return {
        "rows": Paginator(rows, PER_PAGE).get_page(request.GET.get("page")),
        "readback": fleet.readback(environment.revision),
        "refusing": sum(bool(row.refusals) for row in rows),
        "newer": sorted(row.router.instance for row in rows if (row.revision or 0) > environment.revision),
        "pins": [(each, fleet.readback(each.revision, changed_at=each.changed_at)) for each in pinned],
        "published": next(iter(publish.states(environment.pk)), None),
    }


def _rows(environment: Environment, fleet: Fleet, known: Iterable[Router]) -> list[RouterRow]:
    """Return rows for routers heard from in the last day that have not left, those needing attention first."""
    refusals = defaultdict(list)
    for refusal in fleet.rejected:
        refusals[refusal.router].append(refusal)
    awaited = {router.instance for router in fleet.routers if not fleet.is_silent(router)}
    counted = {router.instance for router in fleet.routers}
    rows = []
    for router in known:
        if router.polled_at <= fleet.now - SHOWN_FOR or has_left(router, fleet.now):
            continue
        at = applied(router, fleet.now)
        here = at.epoch == environment.epoch
        behind = max(0, environment.revision - at.revision) if here else None
        rows.append(
            RouterRow(
                router,
                _state(router, behind, refusals, counted, awaited),
                at.revision if here else None,
                behind,
                refusals[router.instance],
                _clock_ahead_s(router, fleet.now),
                _reports_partly(router, fleet.now),
            )
        )
    return sorted(rows, key=lambda row: (_RANK.index(row.state), row.router.instance))


def _clock_ahead_s(router: Router, now: datetime) -> float | None:
    """Return how far its clock is ahead (in seconds), if it was recently refused for that; it retries every minute
    or so."""
    told_at = router.clock_ahead_at
    return router.clock_ahead_s if told_at and now - told_at < CLOCK_SHOWN_FOR else None


def _reports_partly(router: Router, now: datetime) -> bool:
    """Return whether it recently reported without decisions; this is recorded once an hour."""
    at = router.reported_partly_at
    return at is not None and now - at < PARTLY_SHOWN_FOR


def _state(
    router: Router,
    behind: int | None,
    refusals: dict[str, list[Refusal]],
    counted: set[str],
    awaited: set[str],
) -> str:
    name = router.instance
    if refusals[name]:
        return "rejecting"
    if not router.epoch and not router.acked_epoch:
        return "starting" if name in counted else "silent"
    if name not in awaited:
        return "silent"
    return "up to date" if behind == 0 else "behind"


def _pinned(environment: Environment) -> Iterable[Assignment]:
    pinned = environment.assignments.exclude(pin_model="").defer("fragment")
    return pinned.select_related("environment", "workload").order_by("workload__name")


def fleets(environments: Sequence[Environment]) -> list[tuple[Environment, Readback]]:
    """Return each environment with the readback of its current revision, in three queries for all."""
    now, hearing = clock.now(), read_hearing()
    known: dict[int, list[Router]] = {each.pk: [] for each in environments}
    heard = Router.objects.filter(environment__in=environments, polled_at__gte=silent_before(hearing, now))
    for router in heard.order_by():
        known[router.environment_id].append(router)
    return [
        (each, read_fleet(each, now=now, hearing=hearing, known=known[each.pk]).readback(each.revision))
        for each in environments
    ]
