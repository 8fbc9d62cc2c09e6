"""The rollout's state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_app.engine.states import (
    ACTIVE,
    BY_ITSELF,
    ENDED,
    TRANSITIONS,
    Event,
    IllegalTransition,
    State,
    next_state,
)


@pytest.mark.parametrize(("pair", "after"), TRANSITIONS.items(), ids=str)
def test_it_follows_the_table(pair: tuple[State, Event], after: State) -> None:
    assert next_state(*pair) is after


@given(st.sampled_from(State), st.sampled_from(Event))
def test_it_refuses_every_other_pair_and_says_what_would_be_allowed(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        return
    with pytest.raises(IllegalTransition) as refused:
        next_state(state, event)
    assert (refused.value.state, refused.value.event) == (state, event)
    assert all((state, allowed) in TRANSITIONS for allowed in refused.value.allowed)
    assert all(allowed.replace("_", " ") in str(refused.value) for allowed in refused.value.allowed)
    assert not BY_ITSELF & set(refused.value.allowed)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_it_rolls_back_from_wherever_the_candidate_is_served(state: State) -> None:
    assert next_state(state, Event.ROLL_BACK) is State.ROLLING_BACK
    assert next_state(state, Event.ABORT) is State.ROLLING_BACK


def test_it_never_leaves_an_end() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in ENDED]
    assert not ACTIVE & ENDED


def test_it_reaches_every_state_from_a_draft() -> None:
    reached = {State.DRAFT}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    assert reached == set(State)
