"""Every action from every state: those in the table work, all others are refused with a helpful message."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from controlplane.audit.models import Entry
from controlplane.core.errors import Conflict, IllegalMove
from rollout_app import actions
from rollout_app.engine.states import TRANSITIONS, Event, State, allowed_events
from rollout_app.models import Approval, Rollout
from rollout_app.serializers import RolloutSerializer
from tests.support import places
from tests.support.in_states import IN, running
from tests.support.places import ANNA, BEN, approve_stage

pytestmark = pytest.mark.django_db
BY_EVENT: dict[Event, Callable[..., Rollout]] = {
    Event.PROPOSE: actions.submit_rollout,
    Event.AMEND: actions.amend_rollout,
    Event.APPROVE: places.approve,
    Event.REJECT: actions.reject_rollout,
    Event.WITHDRAW_APPROVAL: actions.withdraw_approval,
    Event.CANCEL: actions.cancel_rollout,
    Event.START: actions.start_rollout,
    Event.BREAK_GLASS: actions.break_glass_start,
    Event.ADVANCE: actions.advance_rollout,
    Event.PAUSE: actions.pause_rollout,
    Event.RESUME: actions.resume_rollout,
    Event.ROLL_BACK: actions.roll_back_rollout,
    Event.ABORT: actions.abort_rollout,
    Event.COMPLETE: actions.complete_rollout,
}


MAY_BE_APPROVED = (State.SCHEDULED, State.RUNNING, State.PAUSED)


@pytest.mark.parametrize("state", State)
def test_it_refuses_events_that_the_state_lacks_and_lists_the_possible_ones(state: State) -> None:
    rollout = IN[state]()
    assert rollout.state == state
    before = Rollout.objects.filter(pk=rollout.pk).values().get()
    approvals = Approval.objects.count()
    for event, action in BY_EVENT.items():
        if (state, event) in TRANSITIONS or (state is State.AWAITING_APPROVAL and event is Event.START):
            continue
        with pytest.raises(IllegalMove) as refused:
            action(rollout, actor=BEN, reason="let us see")
        assert str(refused.value).startswith(f"A rollout that is {state.replace('_', ' ')} cannot "), event
        assert refused.value.extra["allowed"] == list(allowed_events(state))
        assert Entry.objects.filter(outcome="refused").latest("seq").reason == "let us see"
    assert Rollout.objects.filter(pk=rollout.pk).values().get() == before
    assert Approval.objects.count() == approvals


@pytest.mark.parametrize("state", State)
def test_it_offers_only_possible_actions(state: State) -> None:
    """Everything in the API's `can` succeeds, and everything else is refused."""
    can = set(RolloutSerializer(IN[state]()).data["can"]) - {actions.APPROVE_STAGE}
    functions = BY_EVENT | {Event.REVERT: actions.revert_rollout}
    assert can <= set(functions)
    for event, action in functions.items():
        with nullcontext() if event in can else pytest.raises(Conflict):
            action(IN[state](), actor=BEN, reason="so be it")


@pytest.mark.parametrize("state", sorted(set(State) - set(MAY_BE_APPROVED)))
def test_it_approves_no_stage_of_a_rollout_that_cannot_reach_it(state: State) -> None:
    with pytest.raises(IllegalMove, match=f"it is {state.replace('_', ' ')}"):
        approve_stage(IN[state](), 1, actor=BEN, reason="yes")
    assert not Approval.objects.filter(stage=1).exclude(rollout__state=State.COMPLETED).exists()


@pytest.mark.parametrize("stage", [-1, 2])
def test_it_approves_only_stages_of_the_plan(stage: int) -> None:
    with pytest.raises(IllegalMove, match=f"There is no stage {stage}: the plan has 2, counted from 0"):
        approve_stage(running(), stage, actor=BEN, reason="yes")


def test_it_calls_stages_by_their_names() -> None:
    rollout = running()
    with pytest.raises(Conflict, match="Nobody has approved entering the full stage yet"):
        actions.advance_rollout(rollout, actor=BEN, reason="on")
    with pytest.raises(IllegalMove, match="10 % is not a later stage: the rollout is running at 10 %"):
        approve_stage(rollout, 0, actor=BEN, reason="yes")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (State.DRAFT, "this one is draft: cancel it."),
        (State.RUNNING, "this one is running: roll it back."),
        (State.ROLLING_BACK, "this one is rolling back."),
        (State.ROLLED_BACK, "this one is rolled back."),
    ],
)
def test_it_reverts_only_completed_rollouts(state: State, says: str) -> None:
    with pytest.raises(Conflict, match=says):
        actions.revert_rollout(IN[state](), actor=ANNA, reason="back")
