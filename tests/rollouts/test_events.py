"""Every event of the state machine is known wherever events are shown, offered or tested."""

import pytest

from controlplane.audit import sentences
from rollout_app import urls
from rollout_app.console.history import EVENTS
from rollout_app.console.rollout_actions import ROLLOUT_ACTIONS
from rollout_app.engine.states import BY_ITSELF, Event
from tests.rollouts.test_wrong_states import BY_EVENT

# The readback confirms by itself, and a revert is requested for another rollout than the one that it moves.
BY_PEOPLE = set(Event) - BY_ITSELF


def test_the_history_has_words_and_a_colour_for_it() -> None:
    assert set(EVENTS) == set(Event)


@pytest.mark.parametrize("event", Event)
def test_the_audit_log_has_a_verb_for_it(event: Event) -> None:
    assert f"rollout.{event}" in sentences.VERBS


def test_the_rollouts_page_offers_it() -> None:
    assert {action.event for action in ROLLOUT_ACTIONS.values()} == BY_PEOPLE | {Event.REVERT, None}


def test_the_api_has_a_url_for_it() -> None:
    served = {name.replace("-", "_").replace("submit", "propose") for name in urls.MOVES}
    # Two have views of their own: an approval names what was seen, and amending is a PATCH.
    assert served | {Event.APPROVE, Event.AMEND} == BY_PEOPLE | {Event.REVERT}


def test_it_is_tried_in_every_state() -> None:
    assert set(BY_EVENT) == BY_PEOPLE
