"""Action, API (`can`) and page agree on what is possible now."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import PointsmanError
from policies_app.actions import pin, set_assignment
from policies_app.models import Environment, Model
from rollout_app import actions
from rollout_app.engine.states import Event
from rollout_app.models import Rollout
from rollout_app.serializers import RolloutSerializer
from tests.support import builders, places
from tests.support.places import ANNA, BEN, approve, approve_stage

pytestmark = pytest.mark.django_db
PLAN: list[dict[str, Any]] = [
    {"mode": "shadow", "min_tasks": 200},
    {"mode": "percentage", "share_pcm": 10_000, "approval": True},
    {"mode": "full"},
]


def pinned(rollout: Rollout) -> None:
    pin(places.assignment(rollout), "large", actor=SYSTEM, reason="the small one is down")


def frozen(rollout: Rollout) -> None:
    Environment.objects.update(frozen_until=clock.now() + timedelta(hours=1), freeze_reason="year end")


def moved(rollout: Rollout) -> None:
    other = builders.version(rollout.workload, actor=ANNA)
    set_assignment(rollout.environment_id, rollout.workload_id, baseline=other, cause="test")


def occupied(rollout: Rollout) -> None:
    """Start another rollout of the same environment and workload."""
    other = actions.propose_rollout(
        rollout.environment, rollout.workload, rollout.candidate, plan=PLAN[2:], reason="me first", actor=ANNA
    )
    actions.start_rollout(approve(other, actor=BEN, reason="yes"), actor=BEN, reason="me first")


def disabled(rollout: Rollout) -> None:
    Model.objects.filter(name="openai/gpt-4o-mini").update(enabled=False)


ADVANCE, START = (Event.ADVANCE, actions.advance_rollout), (Event.START, actions.start_rollout)


@pytest.mark.parametrize(
    ("made", "event", "action", "obstacle", "code", "says"),
    [
        (places.started, *ADVANCE, pinned, "conflict", "is pinned to large"),
        (places.started, *ADVANCE, frozen, "frozen", r"is frozen until .* \(year end\)"),
        (places.started, *ADVANCE, moved, "conflict", "now serves version 3"),
        (places.started, *ADVANCE, lambda rollout: None, "approval_missing", "Nobody has approved entering 10 %"),
        (places.approved, *START, pinned, "conflict", "is pinned to large"),
        (places.approved, *START, frozen, "frozen", "nothing starts or advances"),
        (places.approved, *START, moved, "approval_stale", "now serves version 3"),
        (places.approved, *START, occupied, "rollout_active", "Another rollout"),
        (places.approved, *START, disabled, "conflict", "uses openai/gpt-4o-mini, which is disabled"),
    ],
)  # fmt: skip
def test_action_api_and_page_refuse_in_the_same_words(
    made: Callable[..., Rollout],
    event: Event,
    action: Callable[..., Rollout],
    obstacle: Callable[[Rollout], None],
    code: str,
    says: str,
) -> None:
    rollout = made(plan=PLAN)
    obstacle(rollout)
    refusal = actions.refusals(rollout, clock.now())[event]
    assert refusal is not None and (refusal.code, refusal.by_state) == (code, False)
    assert event not in RolloutSerializer(rollout).data["can"]
    with pytest.raises(PointsmanError, match=says) as refused:
        action(rollout, actor=BEN, reason="on")
    assert (refused.value.code, refused.value.detail) == (code, refusal.sentence)


def test_it_offers_to_approve_a_stage_until_it_is_approved() -> None:
    rollout = places.started(plan=PLAN)
    asked = actions.refusals(rollout, clock.now())
    assert asked[actions.APPROVE_STAGE] is None and asked[Event.ADVANCE] is not None
    approve_stage(rollout, 1, actor=BEN, reason="shadow agrees")
    asked = actions.refusals(rollout, clock.now())
    assert asked[actions.APPROVE_STAGE] is not None and asked[Event.ADVANCE] is None


@pytest.mark.parametrize(
    ("after", "can"), [(timedelta(hours=72), True), (timedelta(hours=72, seconds=1), False)]
)
def test_it_can_be_reverted_for_72_hours(after: timedelta, can: bool) -> None:
    rollout = places.completed()
    assert rollout.ended_at
    refusal = actions.refusal(rollout, Event.REVERT, rollout.ended_at + after)
    assert (refusal is None) == can
    assert can or (refusal and refusal.by_state)


def test_a_version_with_a_disabled_model_may_be_drafted_but_not_proposed() -> None:
    draft = places.proposed(draft=True)
    disabled(draft)
    with pytest.raises(PointsmanError, match="uses openai/gpt-4o-mini, which is disabled"):
        actions.submit_rollout(draft, actor=ANNA, reason="on")
    with pytest.raises(PointsmanError, match="is disabled in the catalogue"):
        actions.propose_rollout(
            draft.environment, draft.workload, draft.candidate, plan=PLAN, reason="on", actor=ANNA
        )
    assert list(Rollout.objects.values_list("state", flat=True)) == ["draft"]


def test_a_disabled_model_does_not_prevent_a_rollback_or_revert() -> None:
    rollout = places.completed()
    disabled(rollout)
    reverting = actions.revert_rollout(rollout, actor=BEN, reason="it fails at night")
    assert actions.roll_back_rollout(reverting, actor=BEN, reason="no").state == "rolling_back"


def test_an_ended_rollout_needs_no_queries(
    django_assert_num_queries: Callable[..., Any],
) -> None:
    rollout, now = actions.cancel_rollout(places.approved(), actor=ANNA, reason="no"), clock.now()
    with django_assert_num_queries(0):
        assert None not in actions.refusals(rollout, now).values()
