"""The effects of every move: state table, one winner, one history row, one audit entry, one revision."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import (
    Conflict,
    Frozen,
    IllegalMove,
    InvalidInput,
    NotFound,
    PlanRefused,
    RolloutActive,
    RolloutMoved,
)
from policies_app.actions import edit_environment, pin
from policies_app.fleet.readback import ON_RECORD_AFTER
from policies_app.models import Listening, Revision
from rollout_app import actions
from rollout_app.engine import plans
from rollout_app.engine.states import State
from rollout_app.evaluation.reconcile import reconcile, sweep
from rollout_app.models import Plan, Rollout
from tests.support import builders
from tests.support.places import (
    ANNA,
    BEN,
    PLAN,
    approve,
    approved,
    assignment,
    completed,
    listening,
    proposed,
    router,
    started,
)

pytestmark = pytest.mark.django_db


def overtaken(by: Actor = BEN) -> Rollout:
    """Return a rollout as read at its first stage, just before `by` advanced it."""
    rollout = started()
    seen = Rollout.objects.get(pk=rollout.pk)
    actions.advance_rollout(rollout, actor=by, reason="on")
    return seen


def test_it_lets_one_of_two_win() -> None:
    stale = overtaken()
    with pytest.raises(RolloutMoved) as refused:
        actions.advance_rollout(stale, actor=BEN, reason="on")
    assert refused.value.extra["stage"] == 1
    assert Rollout.objects.get(pk=stale.pk).stage == 1
    assert Entry.objects.filter(action="rollout.advance", outcome="refused").count() == 1


@pytest.mark.parametrize("action", [actions.roll_back_rollout, actions.abort_rollout, actions.pause_rollout])
def test_it_stops_a_rollout_that_advanced_meanwhile(action: Any) -> None:
    """The engine advances at the moment when a person, who saw the stage before, stops the rollout."""
    stopped = action(overtaken(by=SYSTEM), actor=BEN, reason="stop")
    assert (stopped.state, stopped.stage) == (
        State.PAUSED if action is actions.pause_rollout else State.ROLLING_BACK,
        1,
    )


def test_the_engine_rolls_back_nothing_that_moved_since_it_judged() -> None:
    seen = overtaken()
    with pytest.raises(RolloutMoved):
        actions.roll_back_rollout(seen, actor=SYSTEM, reason="evidence of another stage")


def test_it_changes_all_or_nothing() -> None:
    rollout = started()
    revisions, entries = Revision.objects.count(), Entry.objects.filter(outcome="done").count()
    actions.advance_rollout(rollout, actor=BEN, reason="on")
    assert Revision.objects.count() == revisions + 1
    assert Entry.objects.filter(outcome="done").count() == entries + 1
    served, moved = assignment(rollout), rollout.transitions.get(event="advance")
    assert (served.stage, served.mode, served.share_pcm) == (1, "percentage", 10_000)
    assert moved.revision == served.revision


def test_it_skips_no_stage_and_completes_only_at_the_last() -> None:
    rollout = started()
    with pytest.raises(IllegalMove):
        actions.complete_rollout(rollout, actor=BEN, reason="all")
    for _ in range(3):
        rollout = actions.advance_rollout(rollout, actor=BEN, reason="on")
    with pytest.raises(IllegalMove):
        actions.advance_rollout(rollout, actor=BEN, reason="on")
    rollout = actions.complete_rollout(rollout, actor=BEN, reason="all")
    assert assignment(rollout).baseline == rollout.candidate
    assert list(rollout.transitions.values_list("sequence", flat=True)) == list(range(1, 8))


def test_it_allows_one_active_rollout_per_place() -> None:
    first = started()
    second = actions.propose_rollout(
        first.environment,
        first.workload,
        builders.version(first.workload, actor=ANNA),
        plan=PLAN,
        reason="also",
        actor=ANNA,
    )
    second = approve(second, actor=BEN, reason="yes")
    with pytest.raises(RolloutActive):
        actions.start_rollout(second, actor=BEN, reason="now")
    assert Rollout.objects.get(pk=second.pk).state == State.SCHEDULED
    assert assignment(first).candidate == first.candidate


def test_it_requires_a_reason() -> None:
    with pytest.raises(InvalidInput):
        actions.roll_back_rollout(started(), actor=BEN, reason="  ")


@pytest.mark.parametrize("action", [actions.roll_back_rollout, actions.abort_rollout])
def test_it_rolls_back_while_paused_frozen_and_pinned(action: object) -> None:
    rollout = actions.advance_rollout(started(), actor=BEN, reason="on")
    rollout = actions.pause_rollout(rollout, actor=BEN, reason="look")
    later = clock.now() + timedelta(days=1)
    edit_environment(rollout.environment, actor=BEN, frozen_until=later, freeze_reason="year end")
    pin(assignment(rollout), "large", actor=BEN, reason="fire")
    rollout = action(rollout, actor=BEN, reason="bad answers")  # type: ignore[operator]
    served = assignment(rollout)
    assert rollout.state == State.ROLLING_BACK
    assert (served.candidate, served.baseline, served.revision) == (
        None,
        rollout.baseline,
        rollout.rollback_revision,
    )
    router(rollout)
    assert reconcile(rollout.pk, now=clock.now() + ON_RECORD_AFTER) == "confirm"
    rollout.refresh_from_db()
    assert rollout.state == (State.ABORTED if action is actions.abort_rollout else State.ROLLED_BACK)


def test_it_neither_starts_nor_advances_in_a_freeze() -> None:
    waiting, running = approved(), started()
    for rollout in (waiting, running):
        edit_environment(rollout.environment, actor=BEN, frozen_until=clock.now() + timedelta(hours=1))
    with pytest.raises(Frozen):
        actions.start_rollout(waiting, actor=BEN, reason="now")
    with pytest.raises(Frozen):
        actions.advance_rollout(running, actor=BEN, reason="on")


def test_it_does_not_advance_under_a_pin() -> None:
    rollout = started()
    pin(assignment(rollout), "large", actor=BEN, reason="fire")
    with pytest.raises(Conflict, match="pinned"):
        actions.advance_rollout(rollout, actor=BEN, reason="on")


def test_it_does_not_advance_while_paused() -> None:
    rollout = actions.pause_rollout(started(), actor=BEN, reason="look")
    with pytest.raises(IllegalMove):
        actions.advance_rollout(rollout, actor=BEN, reason="on")
    assert assignment(rollout).candidate == rollout.candidate
    rollout = actions.resume_rollout(rollout, actor=BEN, reason="on")
    assert rollout.state == State.RUNNING
    assert rollout.paused_s >= 0 and rollout.paused_at is None


def test_it_keeps_the_salt_of_the_same_candidate() -> None:
    first = started()
    actions.abort_rollout(first, actor=BEN, reason="later")
    again = actions.propose_rollout(
        first.environment, first.workload, first.candidate, plan=PLAN, reason="again", actor=ANNA
    )
    other = actions.propose_rollout(
        first.environment,
        first.workload,
        builders.version(first.workload, actor=ANNA),
        plan=PLAN,
        reason="other",
        actor=ANNA,
    )
    assert again.salt == first.salt != other.salt


def test_it_starts_by_itself_when_it_is_time() -> None:
    at = clock.now() + timedelta(hours=1)
    rollout = approved(scheduled_for=at)
    assert reconcile(rollout.pk, now=at - timedelta(seconds=1)) == "idle"
    assert reconcile(rollout.pk, now=at) == "start"
    assert reconcile(rollout.pk, now=at) == "hold"


def test_it_ends_a_readback_after_ten_minutes_and_names_the_stragglers() -> None:
    rollout = actions.roll_back_rollout(started(), actor=BEN, reason="bad")
    router(rollout)
    began = rollout.rolling_back_at
    assert began is not None
    router(rollout, revision=0, instance="r-slow", polled_at=began + timedelta(minutes=9))
    assert reconcile(rollout.pk, now=began + timedelta(minutes=10, seconds=-1)) == "hold"
    assert reconcile(rollout.pk, now=began + timedelta(minutes=10)) == "confirm"
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLED_BACK
    assert rollout.readback == {
        "confirmed": 1, "of": 2, "stragglers": ["r-slow"], "silent": [], "lost": []
    }  # fmt: skip
    assert "r-slow" in rollout.transitions.get(event="confirm_rollback").reason


def test_a_fleet_that_has_not_polled_yet_has_not_followed() -> None:
    rollout = actions.roll_back_rollout(started(), actor=BEN, reason="bad")
    began = rollout.rolling_back_at
    assert began is not None
    assert reconcile(rollout.pk, now=began + timedelta(seconds=4)) == "hold"
    assert reconcile(rollout.pk, now=began + timedelta(seconds=5)) == "confirm"
    reason = rollout.transitions.get(event="confirm_rollback").reason
    assert reason.startswith("No router has ever been seen")


def test_it_waits_for_a_router_that_backs_off_after_our_own_outage() -> None:
    """F1: the rollout became `rolled_back`, "nobody had to follow", while the only router served the candidate."""
    rollout = started()
    began = clock.now()
    Listening.objects.all().delete()
    listening(began - timedelta(hours=2), began - timedelta(minutes=10))
    listening(began - timedelta(seconds=1), began + timedelta(hours=1))
    heard = began - timedelta(minutes=10, seconds=1)
    router(rollout, instance="r-1", polled_at=heard)
    rollout = actions.roll_back_rollout(rollout, actor=BEN, reason="bad")
    for seconds in (11, 60, 118):
        assert reconcile(rollout.pk, now=began + timedelta(seconds=seconds)) == "hold"
    rollout.refresh_from_db()
    assert rollout.readback["stragglers"] == ["r-1"]
    router(rollout, instance="r-1", polled_at=began + timedelta(seconds=118))
    assert reconcile(rollout.pk, now=began + timedelta(seconds=119)) == "confirm"
    reason = rollout.transitions.get(event="confirm_rollback").reason
    assert reason == f"1 of 1 router confirmed revision {rollout.rollback_revision}."


def test_it_ends_with_the_name_of_a_router_that_fell_silent() -> None:
    """F3: it says "2 of 3", never "2 of 2"."""
    rollout = started()
    router(rollout, instance="r-3")
    rollout = actions.roll_back_rollout(rollout, actor=BEN, reason="bad")
    began = rollout.rolling_back_at
    assert began is not None
    router(rollout, instance="r-1")
    router(rollout, instance="r-2")
    assert reconcile(rollout.pk, now=began + timedelta(seconds=115)) == "hold"
    assert reconcile(rollout.pk, now=began + timedelta(seconds=121)) == "confirm"
    rollout.refresh_from_db()
    assert (rollout.readback["confirmed"], rollout.readback["of"]) == (2, 3)
    assert rollout.readback["silent"] == ["r-3"]
    assert "2 of 3 routers" in rollout.transitions.get(event="confirm_rollback").reason


def test_correcting_a_clock_that_was_a_day_ahead_leaves_nothing_stuck() -> None:
    """F10: the rollout stayed `rolling_back` until the next day, and the next rollout was refused."""
    rollout = started()
    router(rollout, revision=0, instance="r-slow")
    rollout = actions.abort_rollout(rollout, actor=BEN, reason="enough")
    began = clock.now()
    ahead = began + timedelta(days=1)
    Rollout.objects.filter(pk=rollout.pk).update(rolling_back_at=ahead, stage_entered_at=ahead, wake_at=ahead)
    assert sweep(now=began) == {"clock": 1}
    assert sweep(now=began) == {"hold": 1}
    assert sweep(now=began + timedelta(minutes=3)) == {"confirm": 1}
    assert Rollout.objects.get(pk=rollout.pk).state == State.ABORTED


def test_a_stage_entered_with_a_clock_ahead_starts_again() -> None:
    rollout = started()
    ahead = clock.now() + timedelta(days=1)
    Rollout.objects.filter(pk=rollout.pk).update(stage_entered_at=ahead, evaluated_at=ahead, wake_at=ahead)
    assert sweep() == {"clock": 1}
    entered = Rollout.objects.get(pk=rollout.pk).stage_entered_at
    assert entered is not None
    assert entered <= clock.now()
    assert sweep() == {"hold": 1}


def test_it_reverts_with_one_click_even_in_a_freeze() -> None:
    rollout = completed()
    edit_environment(rollout.environment, actor=BEN, frozen_until=clock.now() + timedelta(hours=1))
    back = actions.revert_rollout(rollout, actor=BEN, reason="it was better before")
    assert back.state == State.RUNNING
    assert (back.candidate, back.baseline, back.reverts) == (rollout.baseline, rollout.candidate, rollout)
    assert assignment(rollout).mode == "full"
    with pytest.raises(Conflict):
        actions.revert_rollout(rollout, actor=BEN, reason="twice")
    router(back)
    Plan.objects.all()
    edit_environment(back.environment, actor=BEN, frozen_until=None, reason="over")
    assert reconcile(back.pk) == "complete"
    assert assignment(rollout).baseline == rollout.baseline


@pytest.mark.parametrize("change", [actions.remove_plan, actions.edit_plan])
def test_it_reverts_at_once_whatever_became_of_the_saved_plan(change: Any) -> None:
    """The way back must not depend on a row that editors may change: it raised `NotFound`, or served 1 %."""
    rollout = completed()
    slow = {"stages": [{"mode": "percentage", "share_pcm": 1_000}, {"mode": "full"}]}
    change("immediate", actor=ANNA, **(slow if change is actions.edit_plan else {}))
    back = actions.revert_rollout(rollout, actor=BEN, reason="it hurts")
    served = assignment(back)
    assert (back.plan_name, served.mode, served.share_pcm) == ("immediate", "full", 100_000)
    assert served.candidate == rollout.baseline


@pytest.mark.parametrize(("seconds", "works"), [(-1, True), (1, False)])
def test_it_reverts_for_72_hours(seconds: int, works: bool) -> None:
    rollout = completed()
    ended = clock.now() - timedelta(hours=72) - timedelta(seconds=seconds)
    Rollout.objects.filter(pk=rollout.pk).update(ended_at=ended)
    rollout.refresh_from_db()
    if works:
        assert actions.revert_rollout(rollout, actor=BEN, reason="back").state == State.RUNNING
    else:
        with pytest.raises(Conflict, match="72 hours"):
            actions.revert_rollout(rollout, actor=BEN, reason="back")


def test_it_refuses_served_versions_and_unknown_plans() -> None:
    rollout = proposed()
    with pytest.raises(Conflict):
        actions.propose_rollout(
            rollout.environment, rollout.workload, rollout.baseline, plan=PLAN, reason="same", actor=ANNA
        )
    with pytest.raises(NotFound):
        actions.propose_rollout(
            rollout.environment, rollout.workload, rollout.candidate, plan="bold", reason="x", actor=ANNA
        )
    foreign = builders.version(builders.workload())
    with pytest.raises(InvalidInput, match="does not belong to workload"):
        actions.propose_rollout(
            rollout.environment, rollout.workload, foreign, plan=PLAN, reason="x", actor=ANNA
        )
    assert list(Rollout.objects.all()) == [rollout]


def test_it_has_the_saved_plans() -> None:
    assert set(Plan.objects.values_list("name", flat=True)) == set(plans.SAVED)
    for plan in Plan.objects.all():
        assert plans.check(plan.stages) == plan.stages


@pytest.mark.parametrize(
    ("stages", "path"),
    [
        ([], None),
        ("full", None),
        ([{"mode": "percentage", "share_pcm": 5_000}], "stages[0]"),
        ([{"mode": "percentage", "share_pcm": 5_000}, {"mode": "shadow"}, {"mode": "full"}], "stages[1]"),
        ([{"mode": "percentage", "share_pcm": 50}, {"mode": "percentage", "share_pcm": 50}, {"mode": "full"}],
         "stages[1]"),
        ([{"mode": "full"}, {"mode": "full"}], "stages[0]"),
        ([{"mode": "percentage", "share_pcm": 100_000}, {"mode": "full"}], "stages[0].share_pcm"),
        ([{"mode": "percentage", "share_pcm": True}, {"mode": "full"}], "stages[0].share_pcm"),
        ([{"mode": "full", "min_minutes": float("nan")}], "stages[0].min_minutes"),
        ([{"mode": "full", "max_hours": 0}], "stages[0].max_hours"),
        ([{"mode": "full", "colour": "red"}], "stages[0].colour"),
        ([{"mode": "full", "mirror_pcm": 5}], "stages[0].mirror_pcm"),
        ([{"mode": ["full"]}], "stages[0].mode"),
        ([3], "stages[0]"),
    ],
)  # fmt: skip
def test_it_refuses_invalid_plans(stages: object, path: str | None) -> None:
    with pytest.raises(PlanRefused) as refused:
        plans.check(stages)
    problems = refused.value.extra.get("problems", [])
    assert path is None or path in [problem["path"] for problem in problems]


def test_a_race_lost_by_the_system_is_not_audited() -> None:
    stale = overtaken()
    with pytest.raises(RolloutMoved):
        actions.advance_rollout(stale, actor=SYSTEM, reason="on")
    assert not Entry.objects.filter(outcome="refused").exists()
