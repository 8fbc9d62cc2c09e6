"""The rollouts of the home page, grouped by what this person can do about them. Reads only."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from django.db.models import Q, QuerySet, prefetch_related_objects
from django.http import HttpRequest

from controlplane.core import clock
from controlplane.web.pages import person
from rollout_app import actions
from rollout_app.actions.approvals import number_needed
from rollout_app.console.rollout_actions import ROLLOUT_ACTIONS, may_approve, why_not
from rollout_app.console.views import visible
from rollout_app.engine.states import ACTIVE, ENDED_WITHOUT_SUCCESS, Event, State
from rollout_app.models import Rollout

_NEWS = timedelta(days=7)
SHOWN = 20  # per list; the page of rollouts shows all
_ASKED = 200  # at most this many rollouts are checked for what the person may do
_IDLE = {State.AWAITING_APPROVAL, State.SCHEDULED}


@dataclass(frozen=True, slots=True)
class RolloutNeeds:
    """Rollouts for one person: `waiting` for their approval, `ready` to start, and `mine`: their own that ended or wait
    for others; those under way are in `active`.
    """

    waiting: list[Rollout] = field(default_factory=list)
    ready: list[Rollout] = field(default_factory=list)
    mine: list[tuple[Rollout, str]] = field(default_factory=list)
    active: list[Rollout] = field(default_factory=list)


def needs(request: HttpRequest) -> RolloutNeeds:
    """Return at most `SHOWN` of each. Stops checking rollouts as soon as enough are found."""
    seen, now = visible(request), clock.now()
    active = list(seen.filter(state__in=sorted(ACTIVE)).order_by("state", "-created_at")[:_ASKED])
    # Checking a start needs the candidate's document.
    written = seen.defer(None).defer("evidence", "baseline__canonical")
    idle = list(written.filter(state__in=sorted(_IDLE)).order_by("state", "-created_at")[:_ASKED])
    known = actions.Surroundings([*active, *idle])
    # Only where two must approve is it asked who has.
    prefetch_related_objects([each for each in [*active, *idle] if number_needed(each) > 1], "approvals")
    waiting = (each for each in [*idle, *active] if may_approve(request, each, now, known))
    ready = (each for each in idle if _may_start(request, each, now, known))
    return RolloutNeeds(
        waiting=list(islice(waiting, SHOWN)),
        ready=list(islice(ready, SHOWN)),
        mine=list(_mine(request, seen, [*active[SHOWN:], *idle])),
        active=active[:SHOWN],
    )


def _may_start(request: HttpRequest, rollout: Rollout, now: datetime, known: actions.Surroundings) -> bool:
    """Return whether it only waits for this person to start it."""
    if rollout.state != State.SCHEDULED or rollout.scheduled_for is not None:
        return False
    refusal = actions.refusal(rollout, Event.START, now, known)
    return not why_not(request, rollout, ROLLOUT_ACTIONS["start"], refusal)


def _mine(
    request: HttpRequest, seen: QuerySet[Rollout], open_ones: Iterable[Rollout]
) -> Iterable[tuple[Rollout, str]]:
    """Yield the person's rollouts with the reason of their hold or end, newest first.

    Those that wait for somebody's approval have no reason: their state says it.
    """
    own = str(person(request).pk)
    for rollout in open_ones:
        if rollout.proposer_user_id == own and rollout.hold_sentence:
            yield rollout, rollout.hold_sentence
        elif rollout.proposer_user_id == own and rollout.state == State.AWAITING_APPROVAL:
            yield rollout, ""
    for rollout in seen.filter(_ended(), proposer_user_id=own).order_by("-ended_at")[:10]:
        yield rollout, rollout.rollback_reason


def ended_lately(request: HttpRequest) -> QuerySet[Rollout]:
    """Return all visible rollouts that ended this week and had moved traffic, newest first."""
    return visible(request).filter(_ended(), started_at__isnull=False).order_by("-ended_at")


def _ended() -> Q:
    return Q(ended_at__gte=clock.now() - _NEWS, state__in=[State.COMPLETED, *ENDED_WITHOUT_SUCCESS])
