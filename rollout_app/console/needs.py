"""The rollouts of the home page, grouped by what this person can do about them. Reads only."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.http import HttpRequest

from controlplane.core import clock
from controlplane.web.pages import person
from rollout_app import actions
from rollout_app.console.rollout_actions import ROLLOUT_ACTIONS, may_approve, why_not
from rollout_app.console.views import visible
from rollout_app.engine.states import ACTIVE, ENDED, Event, State
from rollout_app.models import Rollout

_NEWS = timedelta(days=7)
_SHOWN = 50  # per list; the page of rollouts shows all
_GONE_BACK = {State.ROLLED_BACK, State.ABORTED, State.REJECTED}


@dataclass(frozen=True, slots=True)
class RolloutNeeds:
    """Rollouts for one person: `waiting` for their approval, `ready` to start, and `mine`: their own, held or ended."""

    waiting: list[Rollout] = field(default_factory=list)
    ready: list[Rollout] = field(default_factory=list)
    mine: list[tuple[Rollout, str]] = field(default_factory=list)
    active: list[Rollout] = field(default_factory=list)


def needs(request: HttpRequest) -> RolloutNeeds:
    seen = visible(request)
    open_ones = list(seen.exclude(state__in=sorted(ENDED)).order_by("state", "-created_at")[: 4 * _SHOWN])
    return RolloutNeeds(
        waiting=[rollout for rollout in open_ones if may_approve(request, rollout)][:_SHOWN],
        ready=[rollout for rollout in open_ones if _may_start(request, rollout)][:_SHOWN],
        mine=list(_mine(request, seen, open_ones)),
        active=[rollout for rollout in open_ones if State(rollout.state) in ACTIVE][:_SHOWN],
    )


def _may_start(request: HttpRequest, rollout: Rollout) -> bool:
    """Return whether it only waits for this person to start it."""
    if rollout.state != State.SCHEDULED or rollout.scheduled_for is not None:
        return False
    refusal = actions.refusal(rollout, Event.START, clock.now())
    return not why_not(request, rollout, ROLLOUT_ACTIONS["start"], refusal)


def _mine(
    request: HttpRequest, seen: QuerySet[Rollout], open_ones: Iterable[Rollout]
) -> Iterable[tuple[Rollout, str]]:
    """Yield the person's rollouts with the reason of their hold or end, newest first."""
    own = str(person(request).pk)
    for rollout in open_ones:
        if rollout.proposer_user_id == own and rollout.hold_sentence:
            yield rollout, rollout.hold_sentence
    for rollout in seen.filter(_ended(), proposer_user_id=own).order_by("-ended_at")[:10]:
        yield rollout, rollout.rollback_reason


def ended_lately(request: HttpRequest) -> QuerySet[Rollout]:
    """Return all visible rollouts that ended this week and had moved traffic, newest first."""
    return visible(request).filter(_ended(), started_at__isnull=False).order_by("-ended_at")


def _ended() -> Q:
    return Q(ended_at__gte=clock.now() - _NEWS, state__in=[State.COMPLETED, *_GONE_BACK])
