"""A whole rollout, evaluation by evaluation: shadow → percentage → full → completed, and the rollback."""

from datetime import timedelta

import pytest

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.fleet.readback import ON_RECORD_AFTER
from rollout_app.engine.states import State
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import VerdictRecord
from tests.support import places
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db


def test_it_goes_from_shadow_to_completed_by_itself() -> None:
    rollout = places.started()
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=10))
    seen = []
    for _ in range(120):
        traffic.minutes(4)
        places.router(rollout)
        seen.append(reconcile(rollout.pk))
        rollout.refresh_from_db()
        if rollout.state == State.COMPLETED:
            break
    assert rollout.state == State.COMPLETED, (seen[-1], rollout.stage, rollout.hold_sentence)
    assert [word for word in seen if word != "hold"] == ["advance", "advance", "advance", "complete"]
    assert places.assignment(rollout).baseline == rollout.candidate
    assert places.assignment(rollout).candidate is None
    assert [t.sequence for t in rollout.transitions.all()] == list(range(1, 8))


def test_it_rolls_back_by_itself_and_waits_for_the_readback() -> None:
    rollout = places.started()
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=10))
    for _ in range(60):
        traffic.minutes(2, candidate=0.75)
        places.router(rollout)
        word = reconcile(rollout.pk)
        if word == "roll_back":
            break
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLING_BACK, (rollout.stage, rollout.hold_sentence)
    assert places.assignment(rollout).candidate is None
    assert places.assignment(rollout).revision == rollout.rollback_revision
    assert VerdictRecord.objects.filter(rollout=rollout, guardrail="failure").exists()

    places.router(rollout, revision=rollout.rollback_revision - 1)
    assert reconcile(rollout.pk) == "hold"
    rollout.refresh_from_db()
    assert rollout.readback == {"confirmed": 0, "of": 1, "stragglers": ["r-1"], "silent": [], "lost": []}

    places.router(rollout)
    assert reconcile(rollout.pk, now=clock.now() + ON_RECORD_AFTER) == "confirm"
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLED_BACK
    assert reconcile(rollout.pk) == "idle"


def test_it_is_approved_automatically_without_four_eyes() -> None:
    rollout = places.proposed(four_eyes=False)
    assert rollout.state == State.SCHEDULED
    approved = rollout.transitions.get(event="approve")
    assert approved.actor_label == SYSTEM.label
