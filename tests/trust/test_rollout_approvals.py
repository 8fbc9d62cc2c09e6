"""Four eyes on a rollout: what an approval covers, who may give it, and that it cannot be bypassed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.access.models import Membership
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import ApprovalMissing, ApprovalStale, Forbidden, SelfApproval
from policies_app import actions as policies
from rollout_app import actions
from rollout_app.engine.states import State
from rollout_app.models import Approval, Rollout
from tests.support import builders, places
from tests.support.callers import Caller
from tests.support.people import logged_in
from tests.support.places import ANNA, BEN, CARL, PLAN, approve, approve_stage, approved, proposed

pytestmark = pytest.mark.django_db
NOBODYS_KEY = Actor("key", "k-cron", "cron")
BENS_KEY = Actor("key", "k-ben", "ben's script", BEN.user_id)


def start(rollout: Rollout) -> Rollout:
    return actions.start_rollout(rollout.pk, actor=BEN, reason="now")


# --- what an approval covers --------------------------------------------------------------------------


def edited(**changes: Any) -> Callable[[Rollout], object]:
    return lambda rollout: policies.edit_workload(rollout.workload, actor=SYSTEM, reason="r", **changes)


JUDGED = [
    ("unit", edited(unit="user")),
    ("quality_bar", edited(quality_bar="0.0100")),
    ("success_signal", edited(success_signal="downstream")),
    ("outcome_lag_s", edited(outcome_lag_s=86_400)),
    ("latency_tolerance_ms", edited(latency_tolerance_ms=600_000)),
]


@pytest.mark.parametrize(("name", "change"), JUDGED, ids=[name for name, _ in JUDGED])
def test_it_does_not_start_if_it_would_be_judged_differently(
    name: str, change: Callable[[Rollout], object]
) -> None:
    rollout = approved()
    change(rollout)
    with pytest.raises(ApprovalStale, match=name):
        start(rollout)
    again = approve(actions.amend_rollout(rollout.pk, actor=ANNA, reason="as it is now"))
    assert start(again).state == State.RUNNING


@pytest.mark.parametrize("switched", [{"enabled": False}, {"margin": 0.9}, {"weight": 0.001}], ids=str)
def test_the_approved_guardrails_apply(switched: dict[str, Any]) -> None:
    rollout = approved()
    before = rollout.guardrails
    for metric in ("failure", "cost_per_success", "error"):
        actions.set_guardrail(rollout.workload, metric, actor=SYSTEM, reason="in the way", **switched)
    assert start(rollout).guardrails == before
    assert {guardrail["metric"] for guardrail in before} >= {"failure", "cost_per_success", "error"}


BOUND: list[tuple[str, Any]] = [
    ("stages", [{"mode": "full"}]),
    ("guardrails", []),
    ("terms", {}),
    ("terms", {"unit": "user"}),
]


@pytest.mark.parametrize(("column", "value"), BOUND, ids=str)
def test_the_binding_covers_it(column: str, value: Any) -> None:
    rollout = proposed()
    before = actions.binding(rollout)
    setattr(rollout, column, value)
    assert actions.binding(rollout) != before


def test_the_binding_covers_every_term() -> None:
    rollout = proposed()
    bindings = {actions.binding(rollout)}
    for name in ("unit", "quality_bar", "success_signal", "outcome_lag_s", "latency_tolerance_ms"):
        assert name in rollout.terms
        fresh = Rollout.objects.get(pk=rollout.pk)
        fresh.terms[name] = "other"
        bindings.add(actions.binding(fresh))
    assert len(bindings) == 6
    assert actions.binding(Rollout.objects.get(pk=rollout.pk)) == actions.binding(rollout)


def test_an_approval_names_what_it_saw() -> None:
    rollout = proposed()
    with pytest.raises(TypeError):
        actions.approve_rollout(rollout, actor=BEN, reason="yes")  # type: ignore[call-arg]
    with pytest.raises(ApprovalStale):
        actions.approve_rollout(rollout, actor=BEN, reason="yes", expected_binding="*")
    ben = Caller("viewer", "approver", user=User.objects.get(pk=BEN.id))
    answer = ben("POST", f"rollouts/{rollout.pk}/approve", {"reason": "yes"}, **{"If-Match": "*"})
    assert answer.status_code == 422
    assert not Approval.objects.exists()


def test_the_approval_of_a_stage_names_what_it_saw() -> None:
    rollout = approved(plan=[PLAN[0], PLAN[1] | {"approval": True}, PLAN[3]])
    ben = Caller("viewer", "approver", user=User.objects.get(pk=BEN.id))
    path = f"rollouts/{rollout.pk}"
    shown = ben("GET", path).json()["stage_bindings"]
    assert list(shown) == ["1"]
    wrong = {"reason": "yes", "binding": ben("GET", path).json()["binding"]}
    at = f"{path}/stages/1/approve"
    assert ben("POST", at, wrong, **{"If-Match": "*"}).json()["code"] == "approval_stale"
    right = {"reason": "yes", "binding": shown["1"]}
    assert ben("POST", at, right, **{"If-Match": "*"}).status_code == 200


# --- who may approve ----------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [None, PLAN[1:]], ids=["the reason only", "the plan"])
def test_everyone_who_ever_proposed_it_is_excluded(again: Any) -> None:
    rollout = proposed(actor=BEN)
    rollout = actions.amend_rollout(rollout.pk, actor=CARL, plan=again, reason="better said")
    for out in (BEN, BENS_KEY, CARL, ANNA):  # proposed, amended, wrote the version
        with pytest.raises(SelfApproval):
            approve(rollout, actor=out)
    assert actions.is_somebody_else(rollout, "77")


def test_both_drafter_and_submitter_are_excluded() -> None:
    draft = proposed(actor=BEN, draft=True)
    rollout = actions.submit_rollout(draft.pk, actor=CARL, reason="it is ready")
    for out in (BEN, CARL):
        with pytest.raises(SelfApproval):
            approve(rollout, actor=out)


def test_an_approval_is_void_once_its_giver_amends_the_rollout() -> None:
    rollout = actions.amend_rollout(approved().pk, actor=BEN, reason="a little faster")
    rollout = approve(rollout, actor=CARL)
    Approval.objects.update(binding=actions.binding(rollout), approver_user_id=BEN.user_id)
    with pytest.raises(ApprovalStale):
        start(rollout)


@pytest.mark.parametrize("author", [SYSTEM, NOBODYS_KEY], ids=str)
def test_a_version_without_a_known_author_needs_two_approvals(author: Actor) -> None:
    places.people()
    environment, workload = builders.environment(four_eyes=True), builders.workload()
    builders.served(environment, workload)
    written = builders.version(workload, actor=author)
    rollout = actions.propose_rollout(environment, workload, written, plan=PLAN, reason="r", actor=ANNA)
    two_of(rollout)


def test_a_rollout_without_a_known_proposer_needs_two_approvals() -> None:
    two_of(proposed(actor=NOBODYS_KEY))


def two_of(rollout: Rollout) -> None:
    assert approve(rollout).state == State.AWAITING_APPROVAL
    entry = Entry.objects.get(action="rollout.approve", outcome="done")
    assert b"/needed" in bytes(entry.body)
    with pytest.raises(ApprovalMissing, match="1 of 2"):
        start(rollout)
    with pytest.raises(Exception, match="another approver"):
        approve(rollout)
    assert approve(rollout, actor=CARL).state == State.SCHEDULED
    assert start(rollout).state == State.RUNNING


def test_a_key_without_a_person_approves_nothing() -> None:
    with pytest.raises(Forbidden):
        approve(proposed(), actor=NOBODYS_KEY)


@pytest.mark.parametrize("lost", ["the role", "the account"])
def test_the_approver_must_still_hold_the_role_at_the_start(lost: str) -> None:
    rollout = approved()
    if lost == "the role":
        Membership.objects.filter(user_id=BEN.id).delete()
    else:
        User.objects.filter(pk=BEN.id).update(is_active=False)
    with pytest.raises(ApprovalStale, match="no longer an approver"):
        start(rollout)


def test_the_approver_of_a_stage_must_still_hold_the_role() -> None:
    rollout = approved(plan=[PLAN[0], PLAN[1] | {"approval": True}, PLAN[3]])
    rollout = start(approve_stage(rollout, 1))
    Membership.objects.filter(user_id=BEN.id).delete()
    with pytest.raises(ApprovalStale):
        actions.advance_rollout(rollout.pk, actor=SYSTEM, reason="on")


def test_superusers_are_not_exempt() -> None:
    root = Actor.of_user(User.objects.create_superuser("root"))
    rollout = proposed(actor=root)
    with pytest.raises(SelfApproval):
        approve(rollout, actor=root)
    with pytest.raises(ApprovalMissing):
        actions.start_rollout(rollout.pk, actor=root, reason="now")


# --- attempts to bypass it ----------------------------------------------------------------------------


def test_turning_four_eyes_off_does_not_exempt_earlier_proposals() -> None:
    rollout = proposed()
    policies.edit_environment(
        rollout.environment, actor=ANNA, reason="in the way", four_eyes=False, break_glass=True
    )
    with pytest.raises(ApprovalMissing):
        start(rollout)
    amended = actions.amend_rollout(rollout.pk, actor=ANNA, reason="once more")
    assert amended.state == State.AWAITING_APPROVAL
    with pytest.raises(ApprovalMissing):
        start(amended)


def test_turning_four_eyes_on_covers_earlier_proposals() -> None:
    rollout = proposed(four_eyes=False)
    assert rollout.state == State.SCHEDULED
    policies.edit_environment(rollout.environment, actor=ANNA, reason="careful", four_eyes=True)
    with pytest.raises(ApprovalMissing):
        start(rollout)


def test_a_revert_of_a_revert_needs_an_approval() -> None:
    rollout = places.completed()
    back = actions.revert_rollout(rollout.pk, actor=BEN, reason="worse at night")
    back = actions.complete_rollout(back.pk, actor=BEN, reason="done")
    with pytest.raises(ApprovalMissing, match="itself a revert"):
        actions.revert_rollout(back.pk, actor=BEN, reason="on second thoughts")
    assert places.assignment(rollout).baseline == rollout.baseline


def test_without_four_eyes_a_revert_can_be_reverted() -> None:
    rollout = actions.start_rollout(
        proposed(four_eyes=False, plan=[{"mode": "full"}]).pk, actor=ANNA, reason="now"
    )
    rollout = actions.complete_rollout(rollout.pk, actor=ANNA, reason="done")
    back = actions.revert_rollout(rollout.pk, actor=ANNA, reason="hm")
    back = actions.complete_rollout(back.pk, actor=ANNA, reason="done")
    assert actions.revert_rollout(back.pk, actor=ANNA, reason="hm").state == State.RUNNING


def test_a_rollout_from_before_fixed_guardrails_must_be_amended_first() -> None:
    rollout = proposed()
    Rollout.objects.filter(pk=rollout.pk).update(terms={}, guardrails=[])
    rollout.refresh_from_db()
    with pytest.raises(ApprovalStale, match="Amend"):
        approve(rollout)
    rollout = actions.amend_rollout(rollout.pk, actor=ANNA, reason="as it is now")
    assert start(approve(rollout)).guardrails


# --- owners ------------------------------------------------------------------------------------------


@pytest.fixture
def strangers_rollout() -> Rollout:
    return proposed(draft=True)


@pytest.mark.parametrize("move", ["submit", "cancel"])
def test_editors_of_another_team_cannot_move_it(strangers_rollout: Rollout, move: str) -> None:
    rollout = strangers_rollout
    eve = User.objects.create_user("eve")
    Membership.objects.create(user=eve, role="editor")
    path, version = f"rollouts/{rollout.pk}", {"If-Match": f'"{rollout.version}"'}
    call = Caller("viewer", "editor", user=eve)
    refused = call("POST", f"{path}/{move}", {"reason": "for fun"}, **version)
    assert (refused.status_code, refused.json()["team"]) == (403, rollout.workload.owner.name)
    assert call("PATCH", path, {"reason": "for fun"}, **version).status_code == 403
    page = logged_in("eve").post(
        f"/console/rollouts/{rollout.pk}/{move}/", {"reason": "for fun", "seen": rollout.version}
    )
    assert page.status_code == 403
    assert Rollout.objects.get(pk=rollout.pk).state == State.DRAFT
    rollout.workload.owner.members.add(eve)
    assert call("POST", f"{path}/{move}", {"reason": "mine now"}, **version).status_code == 200


def test_an_old_approval_still_counts() -> None:
    """An approval depends on who gave it and for what, not on when."""
    rollout = approved()
    Approval.objects.update(at=clock.now() - timedelta(days=90))
    assert start(rollout).state == State.RUNNING
