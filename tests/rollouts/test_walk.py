"""A whole rollout, look by look: shadow → percentage → full → completed, and the way back."""

from datetime import timedelta

import pytest

from controlplane import clock
from controlplane.actors import SYSTEM, Actor
from policies_app.models import Assignment, Router
from rollout_app import actions
from rollout_app.models import Rollout, Verdict
from rollout_app.reconcile import reconcile
from rollout_app.states import State
from tests import builders
from tests.rollouts.traffic import Traffic

pytestmark = pytest.mark.django_db

ANNA = Actor("user", "1", "anna", "1")
BEN = Actor("user", "2", "ben", "2")
PLAN = [
    {"mode": "shadow", "min_tasks": 200},
    {"mode": "percentage", "share_pcm": 10_000, "min_tasks": 50},
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 50},
    {"mode": "full"},
]


def _proposed(four_eyes: bool = True) -> Rollout:
    environment = builders.environment(four_eyes=four_eyes)
    workload = builders.workload()
    builders.served(environment, workload)
    candidate = builders.version(workload)
    return actions.propose_rollout(environment, workload, candidate, plan=PLAN, reason="cheaper", actor=ANNA)


def _started() -> Rollout:
    rollout = _proposed()
    Traffic(rollout, start=clock.now() - timedelta(days=1)).before()
    rollout = actions.approve_rollout(rollout, actor=BEN, reason="looks right")
    return actions.start_rollout(rollout, actor=BEN, reason="now")


def _router(rollout: Rollout, revision: int | None = None) -> Router:
    rollout.environment.refresh_from_db()
    return Router.objects.update_or_create(
        environment=rollout.environment,
        instance="r-1",
        defaults={
            "epoch": rollout.environment.epoch,
            "revision": rollout.environment.revision if revision is None else revision,
            "polled_at": clock.now(),
        },
    )[0]


def _assignment(rollout: Rollout) -> Assignment:
    return Assignment.objects.get(environment=rollout.environment, workload=rollout.workload)


def test_it_goes_from_shadow_to_completed_by_itself() -> None:
    rollout = _started()
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=10))
    seen = []
    for _ in range(120):
        traffic.minutes(4)
        _router(rollout)
        seen.append(reconcile(rollout.pk))
        rollout.refresh_from_db()
        if rollout.state == State.COMPLETED:
            break
    assert rollout.state == State.COMPLETED, (seen[-1], rollout.stage, rollout.hold_sentence)
    assert [word for word in seen if word != "hold"] == ["advance", "advance", "advance", "complete"]
    assert _assignment(rollout).baseline == rollout.candidate
    assert _assignment(rollout).candidate is None
    assert [t.sequence for t in rollout.transitions.all()] == list(range(1, 8))


def test_it_rolls_back_by_itself_and_waits_for_the_readback() -> None:
    rollout = _started()
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=10))
    for _ in range(60):
        traffic.minutes(2, candidate=0.75)
        _router(rollout)
        word = reconcile(rollout.pk)
        if word == "roll_back":
            break
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLING_BACK, (rollout.stage, rollout.hold_sentence)
    assert _assignment(rollout).candidate is None
    assert _assignment(rollout).revision == rollout.rollback_revision
    assert Verdict.objects.filter(rollout=rollout, guardrail="failure").exists()

    _router(rollout, revision=rollout.rollback_revision - 1)
    assert reconcile(rollout.pk) == "hold"
    rollout.refresh_from_db()
    assert rollout.readback == {"confirmed": 0, "of": 1, "stragglers": ["r-1"]}

    _router(rollout)
    assert reconcile(rollout.pk) == "confirm"
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLED_BACK
    assert reconcile(rollout.pk) == "idle"


def test_it_needs_nobody_where_one_person_is_enough() -> None:
    rollout = _proposed(four_eyes=False)
    assert rollout.state == State.SCHEDULED
    approved = rollout.transitions.get(event="approve")
    assert approved.actor_label == SYSTEM.label
