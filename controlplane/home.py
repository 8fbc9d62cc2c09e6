"""The home page: what needs this person, what is unusual, what is in progress, and the latest changes."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.audit import pages as audit
from controlplane.audit import sentences
from controlplane.core import clock
from controlplane.web import live
from controlplane.web.engine import EngineSeen, engine_seen
from controlplane.web.pages import console_view, fragment, may, must, page
from policies_app.console.alarms import Alarms, alarms
from policies_app.console.fleet import fleets
from policies_app.console.lookups import environments_of
from policies_app.four_eyes import pages as changes
from rollout_app.console.ahead import stories_of
from rollout_app.console.needs import SHOWN, RolloutNeeds, ended_lately, needs
from rollout_app.console.setup.first_steps import first_steps
from rollout_app.engine.states import State
from rollout_app.review.attribution import CellChange, Comparable
from rollout_app.review.environments import whole_of

_PARTS = {
    "heading": "home/_heading.html",
    "engine": "console/_engine.html",
    "fleets": "home/_fleets.html",
    "now": "home/_now.html",
    "changes": "home/_changes.html",
}
_WEEKS_OF = 4  # environments shown: each needs a review of its own
_STORIES = 5


@console_view("GET")
def home(request: HttpRequest) -> HttpResponse:
    if not may(request, Role.VIEWER, permissions.ANYWHERE):
        return page(request, "console/no_role.html", {}, title="Home")
    context = _now(request)
    parts = live.rendered(request, _PARTS, context)
    if live.is_poll(request):
        return live.fresh(request, parts)
    steps = first_steps(request)
    context |= {
        "steps": steps,
        "next_step": next((at for at, step in enumerate(steps) if not (step.done or step.waiting)), None),
    }
    return live.live_page(request, "console/home.html", parts, context, title="Home")


def _now(request: HttpRequest) -> dict[str, Any]:
    environments, found = environments_of(request), needs(request)
    engine, unusual = engine_seen(), alarms(environments)
    waiting_changes, own_changes = changes.waiting(request)
    return {
        "needs": found,
        "most": SHOWN,
        "heading": _heading(found, len(waiting_changes), engine, unusual, len(own_changes)),
        "engine": engine,
        "alarms": unusual,
        "waiting_changes": waiting_changes,
        "own_changes": own_changes,
        "fleets": fleets(environments),
        "changes": sentences.told(list(audit.visible(request).exclude(action__in=sentences.SIGN_INS)[:8])),
    }


def _heading(found: RolloutNeeds, changes: int, engine: EngineSeen, unusual: Alarms, own: int) -> str:
    """Return the single most important sentence. `own`: this person's changes that wait for somebody else."""
    for count, one, many in (
        (len(found.waiting), "1 rollout waits for you", "{} rollouts wait for you"),
        (changes, "1 change waits for you", "{} changes wait for you"),
        (len(found.ready), "1 rollout is ready to start", "{} rollouts are ready to start"),
        (int(engine.dead), "The engine is not running", ""),
        (len(unusual.pins), "1 workload is pinned", "{} workloads are pinned"),
        (len(unusual.frozen), "1 environment is frozen", "{} environments are frozen"),
        (len(found.active), "1 rollout under way", "{} rollouts under way"),
        (
            sum(rollout.state == State.AWAITING_APPROVAL for rollout, _ in found.mine),
            "1 of your rollouts waits for an approval",
            "{} of your rollouts wait for an approval",
        ),
        (
            sum(rollout.state == State.SCHEDULED for rollout, _ in found.mine),
            "1 of your rollouts is on hold",
            "{} of your rollouts are on hold",
        ),
        (own, "1 of your changes waits for an approval", "{} of your changes wait for an approval"),
    ):
        if count:
            return one if count == 1 else many.format(f"{count} or more" if count == SHOWN else count)
    return "All quiet"


@console_view("GET")
def spend(request: HttpRequest) -> HttpResponse:
    """Show this week's cost and what its rollouts achieved. The home page loads it separately: it sums many rows."""
    must(request, None, permissions.ANYWHERE)
    now, environments = clock.now(), environments_of(request)
    weeks = [(e, whole_of(e, days=7, now=now)) for e in environments[:_WEEKS_OF]]
    ended = list(ended_lately(request)[: _STORIES + 1])
    context = {
        "weeks": [
            (e, {"now": week.now, "before": week.before, "saved": _saved(week), "more": -(_saved(week) or 0)})
            for e, week in weeks
            if week.now.tasks
        ],
        "of_the_first": _WEEKS_OF if len(environments) > _WEEKS_OF else None,
        "stories": stories_of(ended[:_STORIES]),
        "newest": _STORIES if len(ended) > _STORIES else None,
    }
    return fragment(request, "home/_spend.html", context)


def _saved(week: CellChange[None]) -> int | None:
    """Return the nano-US-dollars saved compared with last week's behaviour; None if either week has no known cost."""
    return week.saved if Comparable.of(week, partial=False).priced else None


urlpatterns = [path("", home, name="index"), path("spend/", spend, name="spend")]
