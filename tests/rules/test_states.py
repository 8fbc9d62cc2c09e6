"""The rollout's state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_app.engine import states
from rollout_app.engine.states import (
    ACTIVE,
    APPROVABLE,
    BY_ITSELF,
    ENDED,
    TRANSITIONS,
    Event,
    IllegalTransition,
    State,
    allowed_events,
    next_state,
)
from tests.support.sources import ROOT

# A second copy of the table, so that a lost or changed row fails a test.
ROWS = """
draft              propose           awaiting_approval
draft              revert            running
draft              cancel            cancelled
awaiting_approval  amend             awaiting_approval
awaiting_approval  approve           scheduled
awaiting_approval  withdraw_approval awaiting_approval
awaiting_approval  break_glass       running
awaiting_approval  reject            rejected
awaiting_approval  cancel            cancelled
scheduled          amend             awaiting_approval
scheduled          withdraw_approval awaiting_approval
scheduled          start             running
scheduled          cancel            cancelled
running            advance           running
running            pause             paused
running            complete          completed
running            roll_back         rolling_back
running            abort             rolling_back
paused             resume            running
paused             roll_back         rolling_back
paused             abort             rolling_back
rolling_back       confirm_rollback  rolled_back
rolling_back       confirm_abort     aborted
"""


def test_it_has_these_rows_and_no_other() -> None:
    rows = [line.split() for line in ROWS.strip().splitlines()]
    assert {(state, event): after for state, event, after in rows} == TRANSITIONS


def _drawn(text: str) -> dict[tuple[str, str], str]:
    """Return the rows of a diagram of chains such as `a, b ── x, y ──▶ c ── z ──▶ d`."""
    rows: dict[tuple[str, str], str] = {}
    for line in text.splitlines():
        at, *steps = line.strip().split(" ── ") if " ──▶ " in line else [""]
        for step in steps:
            events, _, after = step.partition(" ──▶ ")
            rows |= {(state, event): after for state in at.split(", ") for event in events.split(", ")}
            at = after
    return rows


def test_the_diagrams_show_the_whole_table() -> None:
    reference = (ROOT / "docs" / "reference" / "rollouts.md").read_text()
    assert _drawn(str(states.__doc__)) == TRANSITIONS
    assert _drawn(reference.partition("```\n")[2].partition("```")[0]) == TRANSITIONS


def test_each_event_has_words_for_its_refusal() -> None:
    """Otherwise a refusal of the event is a KeyError."""
    assert set(states.PASSIVE) == set(Event)


def test_a_stage_ahead_can_be_approved_while_the_rollout_can_still_reach_it() -> None:
    assert {"scheduled", "running", "paused"} == APPROVABLE


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (State.DRAFT, ("propose", "cancel")),  # a revert begins as another rollout
        (State.ROLLING_BACK, ()),  # the readback confirms itself
        (State.PAUSED, ("resume", "roll_back", "abort")),
        (State.COMPLETED, ()),
    ],
)
def test_it_lists_the_possible_events(state: State, events: tuple[str, ...]) -> None:
    assert allowed_events(state) == events


def test_active_and_ended_states() -> None:
    assert {"running", "paused", "rolling_back"} == ACTIVE
    assert {"rejected", "rolled_back", "aborted", "completed", "cancelled"} == ENDED


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
def test_it_can_roll_back_from_every_state_that_serves_the_candidate(state: State) -> None:
    assert next_state(state, Event.ROLL_BACK) is State.ROLLING_BACK
    assert next_state(state, Event.ABORT) is State.ROLLING_BACK


def test_no_event_leaves_an_ended_state() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in ENDED]
    assert not ACTIVE & ENDED


def test_it_reaches_every_state_from_a_draft() -> None:
    reached = {State.DRAFT}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    assert reached == set(State)
