"""Four eyes: another person approves exactly one thing, and the approval is checked again at the start."""

import json
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit import chain
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import (
    ApprovalMissing,
    ApprovalStale,
    Forbidden,
    IllegalMove,
    RolloutMoved,
    SelfApproval,
)
from policies_app.actions import add_version
from rollout_app import actions, nudges
from rollout_app.engine.states import State
from rollout_app.models import Approval, Rollout
from tests.support import builders
from tests.support.places import ANNA, BEN, CARL, PLAN, approve, approve_stage, approved, proposed, started

pytestmark = pytest.mark.django_db

ANNAS_KEY = Actor("key", "k-anna", "anna's script", ANNA.user_id)
NOBODYS_KEY = Actor("key", "k-cron", "cron")
APPROVED_STAGE = [PLAN[0], PLAN[1] | {"approval": True}, PLAN[3]]


@pytest.mark.parametrize("actor", [ANNA, ANNAS_KEY], ids=["session", "key"])
def test_it_refuses_the_proposer(actor: Actor) -> None:
    rollout = proposed()
    with pytest.raises(SelfApproval):
        approve(rollout, actor=actor, reason="mine is fine")
    assert not Approval.objects.exists()
    refusal = Entry.objects.get(outcome="refused")
    assert (refusal.action, refusal.actor_label) == ("rollout.approve", actor.label)


def test_it_refuses_the_author_of_the_version() -> None:
    environment, workload = builders.environment(four_eyes=True), builders.workload()
    builders.served(environment, workload)
    rule = {"id": "heavy", "when": "request.prompt_tokens > 9000", "use": "large"}
    version = add_version(workload, builders.document(workload, rules=[rule]), actor=BEN)
    rollout = actions.propose_rollout(
        environment, workload, version, plan=PLAN, reason="ben's idea", actor=ANNA
    )
    with pytest.raises(SelfApproval):
        approve(rollout, actor=BEN, reason="good")


def test_it_refuses_a_key_without_a_person() -> None:
    with pytest.raises(Forbidden):
        approve(proposed(), actor=NOBODYS_KEY, reason="cron says yes")


def test_it_refuses_an_approval_of_something_else_than_was_shown() -> None:
    rollout = proposed()
    shown = actions.binding(rollout)
    amended = actions.amend_rollout(rollout, plan=PLAN[1:], actor=ANNA, reason="no shadow")
    with pytest.raises(ApprovalStale):
        actions.approve_rollout(amended, actor=BEN, reason="good", expected_binding=shown)


def test_it_does_not_start_without_an_approval() -> None:
    with pytest.raises(ApprovalMissing):
        actions.start_rollout(proposed(), actor=BEN, reason="now")


def test_it_voids_the_approval_when_the_plan_is_amended() -> None:
    rollout = actions.amend_rollout(approved(), plan=PLAN[1:], actor=ANNA, reason="no shadow")
    assert rollout.state == State.AWAITING_APPROVAL
    with pytest.raises(ApprovalStale):
        actions.start_rollout(rollout, actor=BEN, reason="now")


def test_the_entry_of_an_amendment_names_all_that_was_fixed_again() -> None:
    rollout = actions.amend_rollout(proposed(), plan=PLAN[1:], actor=ANNA, reason="no shadow")
    entry = json.loads(bytes(Entry.objects.get(action="rollout.amend").body))
    fixed = {name: getattr(rollout, name) for name in ("guardrails", "terms", "four_eyes")}
    assert {name: entry["evidence"][name] for name in fixed} == fixed


def test_it_does_not_start_if_the_baseline_changed() -> None:
    rollout = approved(plan=[{"mode": "full"}])
    other = actions.propose_rollout(
        rollout.environment,
        rollout.workload,
        builders.version(rollout.workload, actor=ANNA),
        plan=[{"mode": "full"}],
        reason="first",
        actor=ANNA,
    )
    other = approve(other, actor=BEN, reason="yes")
    actions.complete_rollout(actions.start_rollout(other, actor=BEN, reason="now"), actor=BEN, reason="done")
    with pytest.raises(ApprovalStale):
        actions.start_rollout(rollout, actor=BEN, reason="now")
    amended = actions.amend_rollout(rollout, actor=ANNA, reason="compare with what is served")
    assert amended.baseline == other.candidate


def test_a_break_glass_start_is_audited() -> None:
    rollout = actions.break_glass_start(proposed(), actor=BEN, reason="the provider is gone")
    assert rollout.state == State.RUNNING
    entry = Entry.objects.get(action="rollout.break_glass", outcome="done")
    assert (entry.actor_label, entry.reason) == ("ben", "the provider is gone")


def test_it_refuses_break_glass_for_an_approved_rollout() -> None:
    with pytest.raises(IllegalMove):
        actions.break_glass_start(approved(), actor=BEN, reason="hurry")


def test_it_waits_for_the_approval_of_a_stage() -> None:
    plan = [PLAN[0], PLAN[1] | {"approval": True}, PLAN[3]]
    rollout = started(plan=plan)
    with pytest.raises(ApprovalMissing):
        actions.advance_rollout(rollout, actor=BEN, reason="on")
    with pytest.raises(SelfApproval):
        approve_stage(rollout, 1, actor=ANNA, reason="mine")
    approve_stage(rollout, 1, actor=BEN, reason="shadow looks right")
    assert actions.advance_rollout(rollout, actor=SYSTEM, reason="on").stage == 1


@pytest.mark.parametrize("what", ["the start", "the start, as the first of two", "a stage"])
def test_it_refuses_the_approval_of_a_rollout_that_moved_since_it_was_read(what: str) -> None:
    """Its binding is computed from what was read, so it would approve what is no longer proposed."""
    actor = NOBODYS_KEY if what.endswith("of two") else ANNA
    rollout = proposed(actor=actor, plan=APPROVED_STAGE)
    if what == "a stage":
        rollout = approve(rollout)
    seen = Rollout.objects.get(pk=rollout.pk)
    actions.amend_rollout(rollout, plan=PLAN[1:], actor=ANNA, reason="no shadow")
    given = Approval.objects.count()
    with pytest.raises(RolloutMoved) as refused:
        if what == "a stage":
            approve_stage(seen, 1, actor=BEN)
        else:
            approve(seen, actor=BEN)
    assert refused.value.extra["state"] == State.AWAITING_APPROVAL
    assert Approval.objects.count() == given


def test_it_approves_only_stages_ahead() -> None:
    with pytest.raises(IllegalMove):
        approve_stage(started(), 0, actor=BEN, reason="late")


# --- what is kept of an approval ------------------------------------------------------------------------


def last(action: str) -> dict[str, Any]:
    """Return the newest entry of an action."""
    body: dict[str, Any] = json.loads(bytes(Entry.objects.filter(action=action).latest("seq").body))
    return body


def by(actor: Actor, stage: int | None, reason: str, bound: str) -> dict[str, Any]:
    """Return an approval as entries and rows describe it."""
    return {
        "approver": actor.label,
        "approver_user_id": actor.user_id,
        "binding": bound,
        "stage": stage,
        "reason": reason,
    }


def kept(rollout: Rollout) -> list[dict[str, Any]]:
    """Return the rows of its approvals that nobody withdrew, as entries describe them."""
    return [
        {
            "approver": row.approver_label,
            "approver_user_id": row.approver_user_id,
            "binding": row.binding,
            "stage": row.stage,
            "reason": row.reason,
        }
        for row in rollout.approvals.filter(withdrawn_at=None).order_by("pk")
    ]


def test_the_row_and_the_entry_of_an_approval_say_who_approved_what_and_why() -> None:
    rollout = proposed()
    bound = actions.binding(rollout)
    before = clock.now()
    actions.approve_rollout(rollout, actor=BEN, reason=" looks right ", expected_binding=bound)
    expected = [by(BEN, None, "looks right", bound)]
    assert kept(rollout) == last("rollout.approve")["approvals"] == expected
    assert before <= Approval.objects.get().at <= clock.now()
    started = actions.start_rollout(rollout, actor=BEN, reason="now")
    assert last("rollout.start")["approvals"] == expected
    actions.advance_rollout(started, actor=BEN, reason="on")
    assert last("rollout.advance")["approvals"] is None


def test_the_entries_of_two_approvals_count_them() -> None:
    rollout = proposed(actor=NOBODYS_KEY)
    bound = actions.binding(rollout)
    approve(rollout, reason="one")
    first = last("rollout.approve")
    after = {"approvals": 1, "needed": 2}
    assert first["after_sha256"] == chain.digest(after)
    assert (first["reason"], first["actor"]["label"]) == ("one", "ben")
    assert first["target"] == {"kind": "rollout", "id": str(rollout.pk)}
    assert (first["environment"], first["workload"]) == (rollout.environment.name, rollout.workload.name)
    assert first["approvals"] == [by(BEN, None, "one", bound)]
    approve(rollout, actor=CARL, reason="two")
    expected = [by(BEN, None, "one", bound), by(CARL, None, "two", bound)]
    assert kept(rollout) == last("rollout.approve")["approvals"] == expected


def test_an_approval_that_is_given_again_is_one_row_with_the_new_reason() -> None:
    rollout = approved()
    bound = actions.binding(rollout)
    back = actions.withdraw_approval(rollout, actor=BEN, reason="a doubt")
    assert kept(rollout) == [] and Approval.objects.get().withdrawn_at is not None
    taken = last("rollout.withdraw_approval")
    assert (taken["reason"], taken["approvals"]) == (
        "a doubt",
        [by(BEN, None, "looks right", bound)],
    )
    first = Approval.objects.get()
    Approval.objects.update(at=clock.now() - timedelta(days=1))
    renamed = Actor("user", BEN.id, "Ben B.", BEN.user_id)
    assert approve(back, actor=renamed, reason="no doubt").state == State.SCHEDULED
    assert kept(rollout) == last("rollout.approve")["approvals"] == [by(renamed, None, "no doubt", bound)]
    again = Approval.objects.get()
    assert again.pk == first.pk and again.at >= first.at


def test_the_approval_of_a_stage_is_recorded_and_evaluated_soon_after_its_commit(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the rollout would wait for the next sweep although nothing holds it any more."""
    nudged: list[list[object]] = []
    rollout = started(plan=APPROVED_STAGE)
    Rollout.objects.update(wake_at=clock.now())
    bound = actions.binding(rollout, 1)
    monkeypatch.setattr(nudges, "nudge", lambda pks: nudged.append(list(pks)))
    with django_capture_on_commit_callbacks(execute=True):
        approve_stage(rollout, 1, reason="shadow agrees")
        assert nudged == []
    assert nudged == [[rollout.pk]]
    assert Rollout.objects.get().wake_at is None
    expected = [by(BEN, 1, "shadow agrees", bound)]
    entry = last("rollout.approve_stage")
    assert entry["after_sha256"] == chain.digest({"stage": 1})
    assert (entry["reason"], entry["environment"], entry["workload"]) == (
        "shadow agrees",
        rollout.environment.name,
        rollout.workload.name,
    )
    assert entry["approvals"] == expected
    assert kept(rollout)[1:] == expected
    advanced = actions.advance_rollout(rollout, actor=BEN, reason="on")
    assert advanced.stage == 1 and last("rollout.advance")["approvals"] == expected
