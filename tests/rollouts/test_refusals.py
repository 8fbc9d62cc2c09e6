"""Action, API (`can`) and page agree on what is possible now."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.access.models import Membership
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import PointsmanError
from policies_app.actions import edit_workload, pin, serve_first, set_assignment, unpin
from policies_app.models import Environment, Model
from rollout_app import actions
from rollout_app.engine.states import Event
from rollout_app.models import Rollout
from rollout_app.serializers import RolloutSerializer
from tests.support import builders, places
from tests.support.places import ANNA, BEN, CARL, approve, approve_stage

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
BREAK_GLASS = (Event.BREAK_GLASS, actions.break_glass_start)


@pytest.mark.parametrize(
    ("made", "event", "action", "obstacle", "code", "says"),
    [
        (places.started, *ADVANCE, pinned, "conflict", "is pinned to large"),
        (places.started, *ADVANCE, frozen, "frozen", r"is frozen until .* \(year end\)"),
        (places.started, *ADVANCE, moved, "conflict", "now serves version 3"),
        (places.started, *ADVANCE, lambda rollout: None, "approval_missing", "Nobody has approved entering 10 %"),
        (places.started, *ADVANCE, disabled, "conflict", "uses openai/gpt-4o-mini, which is disabled"),
        (places.proposed, *BREAK_GLASS, disabled, "conflict", "uses openai/gpt-4o-mini, which is disabled"),
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


@pytest.mark.parametrize(
    ("large", "says"),
    [("strong", "has no model of that name"), ("large", "uses openai/gpt-4o-mini under that name")],
)
def test_it_does_not_complete_while_a_pin_would_come_to_mean_another_model(large: str, says: str) -> None:
    """Routers look a pin up in the baseline's policy, which the candidate is about to become."""
    places.listening()
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    names = {"cheap": {"model": "anthropic/claude-sonnet-4-5"}, large: {"model": "openai/gpt-4o-mini"}}
    other = builders.version(
        workload, models=names, default="cheap", rules=[], escalate={"to": large}, fallback=[large]
    )
    rollout = actions.propose_rollout(
        environment, workload, other, plan=PLAN[2:], reason="renamed", actor=ANNA
    )
    rollout = actions.start_rollout(rollout, actor=BEN, reason="on")
    pinned(rollout)
    refusal = actions.refusals(rollout, clock.now())[Event.COMPLETE]
    assert refusal is not None and (refusal.code, refusal.by_state) == ("conflict", False)
    with pytest.raises(PointsmanError, match=f"pinned to large.*{says}"):
        actions.complete_rollout(rollout, actor=BEN, reason="all of it")
    unpin(places.assignment(rollout), actor=BEN, reason="it is back")
    assert actions.complete_rollout(rollout, actor=BEN, reason="all of it").state == "completed"


def test_it_completes_under_a_pin_that_keeps_its_meaning() -> None:
    rollout = places.started(plan=PLAN[2:])
    pinned(rollout)
    assert actions.complete_rollout(rollout, actor=BEN, reason="all of it").state == "completed"


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


ASKING: list[dict[str, Any]] = [PLAN[1] | {"approval": False}, {"mode": "full", "approval": True}]


def at(stage: int) -> Rollout:
    """Return a rollout at this stage; the second stage of its plan asks for an approval."""
    rollout = places.started(plan=ASKING, calibrated=False)
    if stage == 0:
        return rollout
    approve_stage(rollout, 1, actor=BEN, reason="yes")
    return actions.advance_rollout(rollout, actor=BEN, reason="on")


def with_the_next_stage_approved() -> Rollout:
    rollout = at(0)
    approve_stage(rollout, 1, actor=BEN, reason="yes")
    return rollout


def replaced() -> Rollout:
    """Return a completed rollout whose version was replaced by a further one."""
    rollout = places.completed()
    further = actions.propose_rollout(
        rollout.environment, rollout.workload, builders.version(rollout.workload), plan="immediate", reason="r",
        actor=ANNA,
    )  # fmt: skip
    Environment.objects.update(four_eyes=False)
    Rollout.objects.filter(pk=further.pk).update(state="scheduled", four_eyes=False)
    started = actions.start_rollout(further.pk, actor=ANNA, reason="now")
    actions.complete_rollout(started, actor=ANNA, reason="all of it")
    return rollout


def reverted() -> Rollout:
    rollout = places.completed()
    actions.revert_rollout(rollout, actor=BEN, reason="worse")
    return rollout


def twice() -> Rollout:
    """Return a rollout that waits, while another one completed with the same version."""
    rollout = places.approved(plan=PLAN)
    occupied(rollout)
    [other] = Rollout.objects.filter(state="running")
    actions.complete_rollout(other, actor=BEN, reason="all of it")
    return rollout


@pytest.mark.parametrize(
    ("made", "event", "code", "by_state", "says"),
    [
        (lambda: at(1), Event.ADVANCE, "illegal_transition", True,
         "It is already at its last stage; the next step is to complete it."),
        (lambda: at(0), Event.COMPLETE, "illegal_transition", True,
         "It is at 10 %, and can complete only from the plan's last stage. Advance it."),
        (lambda: at(0), Event.ADVANCE, "approval_missing", False, "Nobody has approved entering the full stage yet."),
        (lambda: at(0), actions.APPROVE_STAGE, None, False, ""),
        (lambda: at(1), actions.APPROVE_STAGE, "illegal_transition", True,
         "There is no next stage to approve: the rollout is running."),
        (with_the_next_stage_approved, actions.APPROVE_STAGE, "illegal_transition", True,
         "The full stage is already approved."),
        (lambda: places.approved(plan=ASKING), actions.APPROVE_STAGE, "illegal_transition", True,
         "10 % does not require an approval."),
        (lambda: places.proposed(plan=PLAN), actions.APPROVE_STAGE, "illegal_transition", True,
         "There is no next stage to approve: the rollout is awaiting approval."),
        (lambda: places.proposed(plan=PLAN), Event.WITHDRAW_APPROVAL, "conflict", True, "Nobody has approved it."),
        (lambda: places.proposed(plan=PLAN), Event.START, "approval_missing", True,
         "Nobody has approved the start yet. An approver who neither wrote, proposed nor amended it can approve it."),
        (twice, Event.AMEND, "conflict", False, "Version 2 is already being served; cancel this rollout."),
        (reverted, Event.REVERT, "conflict", False, "It has already been reverted."),
        (replaced, Event.REVERT, "conflict", False,
         "Version 3 is served now, not version 2 that this rollout brought; revert the rollout that brought it."),
    ],
)  # fmt: skip
def test_it_says_why_something_is_not_possible_now(
    made: Callable[[], Rollout], event: str, code: str | None, by_state: bool, says: str
) -> None:
    rollout = made()
    refused = actions.refusals(rollout, clock.now())[event]
    if code is None:
        assert refused is None
        return
    assert refused is not None
    assert (refused.code, refused.by_state) == (code, by_state)
    assert refused.sentence.startswith(says)
    action = getattr(actions, f"{event}_rollout", None)
    if action is not None:
        with pytest.raises(PointsmanError) as error:
            action(rollout, actor=BEN, reason="on")
        assert (error.value.code, error.value.detail) == (code, refused.sentence)


def test_only_the_giver_of_an_approval_can_withdraw_it() -> None:
    rollout = places.approved(plan=PLAN)
    with pytest.raises(PointsmanError, match="You have no approval to withdraw"):
        actions.withdraw_approval(rollout, actor=CARL, reason="a doubt")
    assert rollout.approvals.filter(withdrawn_at=None).count() == 1


def test_an_ended_rollout_needs_no_queries(
    django_assert_num_queries: Callable[..., Any],
) -> None:
    rollout, now = actions.cancel_rollout(places.approved(), actor=ANNA, reason="no"), clock.now()
    with django_assert_num_queries(0):
        assert None not in actions.refusals(rollout, now).values()


def unapproved(rollout: Rollout) -> None:
    Membership.objects.filter(user_id=BEN.id).delete()


def judged_otherwise(rollout: Rollout) -> None:
    edit_workload(rollout.workload, actor=SYSTEM, reason="r", quality_bar="0.5")


@pytest.mark.parametrize(
    ("proposed_under", "now_under", "obstacle", "code"),
    [
        (True, False, unapproved, "approval_stale"),
        (True, False, judged_otherwise, "approval_stale"),
        (False, True, lambda rollout: None, "approval_missing"),
        (False, False, judged_otherwise, None),
    ],
)
def test_four_eyes_apply_if_they_did_at_the_proposal_or_do_now(
    proposed_under: bool, now_under: bool, obstacle: Callable[[Rollout], None], code: str | None
) -> None:
    rollout = places.proposed(four_eyes=proposed_under)
    rollout = approve(rollout) if proposed_under else rollout
    Environment.objects.update(four_eyes=now_under)
    obstacle(rollout)
    known = actions.Surroundings([rollout])
    refused = actions.refusal(rollout, Event.START, clock.now(), known)
    assert refused == actions.refusals(rollout, clock.now())[Event.START]
    assert (refused and refused.code) == code
    if code is None:
        assert actions.start_rollout(rollout, actor=BEN, reason="now").state == "running"
        return
    with pytest.raises(PointsmanError) as error:
        actions.start_rollout(rollout, actor=BEN, reason="now")
    assert error.value.code == code


def test_the_surroundings_of_rollouts_are_those_of_their_own_places() -> None:
    """The home page of one team must not read what other environments and workloads serve and roll out."""
    ours, others = places.started(), places.started()
    elsewhere = builders.environment()
    serve_first(elsewhere, ours.baseline, actor=SYSTEM, reason="r")
    same_workload = actions.propose_rollout(
        elsewhere, ours.workload, ours.candidate, plan=PLAN, reason="r", actor=ANNA
    )
    actions.start_rollout(same_workload, actor=ANNA, reason="now")
    builders.served(ours.environment, others.workload)
    place = (ours.environment_id, ours.workload_id)
    known = actions.Surroundings([ours])
    assert known.environments == {ours.environment_id: ours.environment}
    assert known.assignments == {place: places.assignment(ours)}
    assert known.active == {place}
    Rollout.objects.filter(pk=ours.pk).update(state="paused")
    assert actions.Surroundings([ours]).active == {place}
    Rollout.objects.filter(pk=ours.pk).update(state="completed")
    assert actions.Surroundings([ours]).active == frozenset()
