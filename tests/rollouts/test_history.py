"""What each move leaves: one history row, one audit entry, one revision if traffic changes, and fresh columns."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit import chain
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.models import Revision
from rollout_app import actions, nudges
from rollout_app.engine.states import Event
from rollout_app.models import Rollout
from tests.support import places
from tests.support.places import ANNA, BEN, assignment

pytestmark = pytest.mark.django_db
PLAN: list[dict[str, Any]] = [{"mode": "percentage", "share_pcm": 10_000}, {"mode": "full"}]
BY: dict[str, Any] = {"actor": BEN, "reason": "so be it"}
READBACK = {"confirmed": 3, "of": 3}


def proposed(**fields: Any) -> Rollout:
    return places.proposed(plan=PLAN, **fields)


def running() -> Rollout:
    return places.started(plan=PLAN, calibrated=False)


def at_the_last_stage() -> Rollout:
    return actions.advance_rollout(running(), actor=BEN, reason="on")


def paused() -> Rollout:
    return actions.pause_rollout(running(), actor=BEN, reason="look")


def confirm(rollout: Rollout, **by: Any) -> Rollout:
    return actions.confirm_rolled_back(rollout, readback=READBACK, **by)


Made = Callable[[], Rollout]
Act = Callable[..., Rollout]
MOVES: dict[Event, tuple[Made, Act]] = {
    Event.PROPOSE: (lambda: proposed(draft=True), actions.submit_rollout),
    Event.AMEND: (proposed, actions.amend_rollout),
    Event.APPROVE: (proposed, places.approve),
    Event.REJECT: (proposed, actions.reject_rollout),
    Event.CANCEL: (proposed, actions.cancel_rollout),
    Event.WITHDRAW_APPROVAL: (lambda: places.approved(plan=PLAN), actions.withdraw_approval),
    Event.START: (lambda: places.approved(plan=PLAN), actions.start_rollout),
    Event.BREAK_GLASS: (proposed, actions.break_glass_start),
    Event.ADVANCE: (running, actions.advance_rollout),
    Event.PAUSE: (running, actions.pause_rollout),
    Event.RESUME: (paused, actions.resume_rollout),
    Event.COMPLETE: (at_the_last_stage, actions.complete_rollout),
    Event.ROLL_BACK: (paused, actions.roll_back_rollout),
    Event.ABORT: (at_the_last_stage, actions.abort_rollout),
    Event.CONFIRM_ROLLBACK: (lambda: actions.roll_back_rollout(running(), **BY), confirm),
    Event.CONFIRM_ABORT: (lambda: actions.abort_rollout(running(), **BY), confirm),
}
FIRST = {"baseline": 1, "candidate": 2, "mode": "percentage", "share_pcm": 10_000, "mirror_pcm": 0}
ONLY = {"candidate": None, "mode": "", "share_pcm": 0, "mirror_pcm": 0}
SERVED: dict[Event, dict[str, Any]] = {
    Event.START: FIRST,
    Event.BREAK_GLASS: FIRST,
    Event.ADVANCE: FIRST | {"mode": "full", "share_pcm": 100_000},
    Event.COMPLETE: ONLY | {"baseline": 2},
    Event.ROLL_BACK: ONLY | {"baseline": 1},
    Event.ABORT: ONLY | {"baseline": 1},
}


def last(action: str) -> dict[str, Any]:
    """Return the newest entry of an action."""
    body: dict[str, Any] = json.loads(bytes(Entry.objects.filter(action=action).latest("seq").body))
    return body


def position(rollout: Rollout) -> dict[str, Any]:
    return {"state": str(rollout.state), "stage": rollout.stage, "version": rollout.version}


@pytest.mark.parametrize("event", MOVES)
def test_each_move_keeps_one_row_and_one_entry(event: Event) -> None:
    made, act = MOVES[event]
    rollout = made()
    before, rows, revision = position(rollout), rollout.transitions.count(), assignment(rollout).revision
    moved = Rollout.objects.get(pk=act(rollout, **BY).pk)
    after = position(moved)
    assert after["version"] == before["version"] + 1

    serves = SERVED.get(event)
    changed = assignment(rollout).revision if serves else None
    assert assignment(rollout).revision == revision + (serves is not None)
    if changed:
        assert (
            Revision.objects.get(environment=rollout.environment, number=changed).cause == f"rollout.{event}"
        )
    row = moved.transitions.latest("sequence")
    assert (row.sequence, row.event, row.reason, row.revision) == (rows + 1, event, "so be it", changed)
    assert (row.actor_kind, row.actor_label) == ("user", "ben")
    assert (row.before_state, row.before_stage) == (before["state"], before["stage"])
    assert (row.after_state, row.after_stage) == (after["state"], after["stage"])

    entry = last(f"rollout.{event}")
    assert entry["before_sha256"] == chain.digest(before)
    assert entry["after_sha256"] == chain.digest({**after, "revision": changed, **(serves or {})})
    assert entry["actor"] == {"kind": "user", "id": BEN.id, "label": "ben", "user_id": BEN.user_id}
    assert entry["target"] == {"kind": "rollout", "id": str(rollout.pk)}
    assert (entry["environment"], entry["workload"]) == (rollout.environment.name, rollout.workload.name)
    assert (entry["reason"], entry["outcome"]) == ("so be it", "done")


def test_what_is_served_is_the_stage_of_the_plan() -> None:
    rollout = places.started(plan=[{"mode": "shadow", "mirror_pcm": 20_000}, *PLAN])

    def served() -> dict[str, Any]:
        row = assignment(rollout)
        names = ("baseline", "candidate", "rollout", "stage", "mode", "share_pcm", "mirror_pcm", "salt")
        return {name: getattr(row, name) for name in (*names, "cost_cap_nusd")}

    cap = rollout.reference["cost_cap_nusd"]
    assert cap > 0
    always = {
        "baseline": rollout.baseline, "candidate": rollout.candidate, "rollout": rollout.pk, "salt": rollout.salt,
        "cost_cap_nusd": cap,
    }  # fmt: skip
    stages = [("shadow", 0, 20_000), ("percentage", 10_000, 0), ("full", 100_000, 0)]
    for at, (mode, share, mirrors) in enumerate(stages):
        now = {"stage": at, "mode": mode, "share_pcm": share, "mirror_pcm": mirrors}
        assert served() == always | now
        if at < 2:
            rollout = actions.advance_rollout(rollout, actor=BEN, reason="on")


@pytest.mark.parametrize(
    "event",
    [
        Event.START, Event.ADVANCE, Event.COMPLETE, Event.ROLL_BACK, Event.ABORT,
        Event.AMEND, Event.CANCEL, Event.REJECT, Event.APPROVE, Event.WITHDRAW_APPROVAL,
    ],
)  # fmt: skip
def test_a_move_clears_what_the_last_evaluation_showed(event: Event) -> None:
    made, act = MOVES[event]
    rollout = made()
    shown = {"hold_code": "evidence", "hold_sentence": "Too few tasks.", "outlook": "An hour."}
    Rollout.objects.update(wake_at=clock.now(), paused_s=5.0, readback={"of": 9}, **shown)
    rollout.refresh_from_db()
    moved = Rollout.objects.get(pk=act(rollout, **BY).pk)
    assert {name: getattr(moved, name) for name in shown} == dict.fromkeys(shown, "")
    assert moved.wake_at is None
    if event in (Event.START, Event.ADVANCE):
        assert moved.paused_s == 0
    if event in (Event.ROLL_BACK, Event.ABORT):
        assert (moved.readback, moved.paused_at, moved.rollback_reason) == ({}, None, "so be it")


TIMES = {
    Event.START: {"started_at", "stage_entered_at"},
    Event.BREAK_GLASS: {"started_at", "stage_entered_at"},
    Event.ADVANCE: {"stage_entered_at"},
    Event.PAUSE: {"paused_at"},
    Event.COMPLETE: {"ended_at"},
    Event.ROLL_BACK: {"rolling_back_at"},
    Event.ABORT: {"rolling_back_at"},
    Event.CONFIRM_ROLLBACK: {"ended_at"},
    Event.CONFIRM_ABORT: {"ended_at"},
}


@pytest.mark.parametrize("event", TIMES)
def test_a_move_records_when_it_happened(event: Event) -> None:
    made, act = MOVES[event]
    rollout, began = made(), clock.now()
    moved = Rollout.objects.get(pk=act(rollout, **BY).pk)
    times = ("started_at", "stage_entered_at", "paused_at", "rolling_back_at", "ended_at")
    fresh = {name for name in times if (at := getattr(moved, name)) and began <= at <= clock.now()}
    assert fresh == TIMES[event]


def test_the_time_of_a_pause_is_added_to_earlier_pauses() -> None:
    """The stage's clock stands still meanwhile."""
    rollout = paused()
    Rollout.objects.update(paused_s=30.0, paused_at=clock.now() - timedelta(seconds=100))
    rollout.refresh_from_db()
    resumed = Rollout.objects.get(pk=actions.resume_rollout(rollout, actor=BEN, reason="on").pk)
    assert 130 <= resumed.paused_s < 190
    assert (resumed.paused_at, resumed.stage) == (None, 0)


@pytest.mark.parametrize("event", [Event.PAUSE, Event.ROLL_BACK, Event.ADVANCE])
def test_a_move_is_evaluated_soon_after_its_commit(
    event: Event, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[list[object]] = []
    made, act = MOVES[event]
    rollout = made()
    monkeypatch.setattr(nudges, "nudge", lambda pks: nudged.append(list(pks)))
    with django_capture_on_commit_callbacks(execute=True):
        act(rollout, **BY)
        assert nudged == []
    assert nudged == [[rollout.pk]]


# --- the evidence of an entry -----------------------------------------------------------------------------


def outline(rollout: Rollout, **changes: Any) -> dict[str, Any]:
    """Return what the log records of a proposal by Anna of version 2."""
    return {
        "baseline": 1,
        "candidate": 2,
        "candidate_digest": rollout.candidate.digest,
        "plan": "custom",
        "stages": rollout.stages,
        "scheduled_for": None,
        "salt": rollout.salt,
        "proposer_label": "anna",
        "proposer_user_id": ANNA.user_id,
        "state": "draft",
    } | changes


def fixed(rollout: Rollout) -> dict[str, Any]:
    return {name: getattr(rollout, name) for name in ("guardrails", "terms", "four_eyes")}


def test_the_entry_of_a_draft_has_its_outline() -> None:
    rollout = proposed(draft=True)
    entry = last("rollout.draft")
    assert entry["after_sha256"] == chain.digest(outline(rollout))
    assert (entry["before_sha256"], entry["reason"]) == (None, "cheaper")
    assert entry["target"] == {"kind": "rollout", "id": str(rollout.pk)}
    assert not rollout.transitions.exists()


def test_the_entry_of_a_proposal_has_its_outline_and_what_was_fixed() -> None:
    rollout = proposed()
    assert last("rollout.propose")["evidence"] == chain.plain({**outline(rollout), **fixed(rollout)})
    assert rollout.terms["edition"] == 1


def test_the_entry_of_an_amendment_has_both_outlines() -> None:
    rollout = proposed()
    before = outline(rollout, state="awaiting_approval")
    at = clock.now()
    amended = actions.amend_rollout(rollout, plan="immediate", scheduled_for=at, actor=BEN, reason="at once")
    assert last("rollout.amend")["evidence"] == chain.plain(
        {
            "before": before,
            "plan": "immediate",
            "stages": amended.stages,
            "baseline": 1,
            "scheduled_for": at,
            "proposer_label": "ben",
            "proposer_user_id": BEN.user_id,
            **fixed(amended),
        }
    )
    assert (amended.plan_name, [stage["mode"] for stage in amended.stages]) == ("immediate", ["full"])
    assert amended.terms["edition"] == 2


def test_an_automatic_approval_says_why_there_was_no_person() -> None:
    rollout = proposed(four_eyes=False)
    entry = last("rollout.approve")
    assert entry["actor"]["kind"] == SYSTEM.kind and entry["approvals"] is None
    assert entry["reason"] == f"{rollout.environment.name} does not require an approval for rollouts."


@pytest.mark.parametrize("event", [Event.START, Event.BREAK_GLASS])
def test_the_entry_of_a_start_has_the_reference_and_the_guardrails(event: Event) -> None:
    made, act = MOVES[event]
    rollout = act(made(), **BY)
    assert rollout.reference and rollout.guardrails
    entry = last(f"rollout.{event}")
    assert entry["evidence"] == chain.plain(
        {"reference": rollout.reference, "guardrails": rollout.guardrails}
    )
    assert len(entry["approvals"]) == (event is Event.START)


@pytest.mark.parametrize("event", [Event.CONFIRM_ROLLBACK, Event.CONFIRM_ABORT])
def test_the_end_of_a_rollback_keeps_the_readback(event: Event) -> None:
    made, act = MOVES[event]
    rollout = Rollout.objects.get(pk=act(made(), **BY).pk)
    assert rollout.readback == last(f"rollout.{event}")["evidence"]["readback"] == READBACK


@pytest.mark.parametrize(
    "act", [actions.advance_rollout, actions.complete_rollout, actions.roll_back_rollout]
)
def test_the_evidence_of_the_engine_is_kept(act: Act) -> None:
    rollout = at_the_last_stage() if act is actions.complete_rollout else running()
    act(rollout, actor=SYSTEM, reason="safe", evidence={"log_e": 3.5})
    assert json.loads(bytes(Entry.objects.latest("seq").body))["evidence"] == {"log_e": 3.5}


def test_a_revert_is_a_new_rollout_with_its_own_history() -> None:
    rollout = places.completed()
    back = actions.revert_rollout(rollout, actor=BEN, reason="worse at night")
    expected = outline(
        rollout, baseline=2, candidate=1, candidate_digest=rollout.baseline.digest, plan="immediate",
        salt=str(back.pk), proposer_label="ben", proposer_user_id=BEN.user_id, reverts=str(rollout.pk),
        stages=back.stages,
    )  # fmt: skip
    entry = last("rollout.revert")
    assert entry["evidence"] == chain.plain(expected)
    assert entry["target"] == {"kind": "rollout", "id": str(back.pk)}
    served = {"baseline": 2, "candidate": 1, "mode": "full", "share_pcm": 100_000, "mirror_pcm": 0}
    after = {**position(back), "revision": assignment(back).revision, **served}
    assert entry["after_sha256"] == chain.digest(after)
    row = back.transitions.get()
    assert (row.sequence, row.before_state, row.after_state, row.reason) == (
        1,
        "draft",
        "running",
        "worse at night",
    )
    assert row.revision == assignment(back).revision
    kept = Rollout.objects.get(pk=back.pk)
    assert (kept.reason, kept.reverts_id, kept.salt) == ("worse at night", rollout.pk, str(back.pk))
    assert kept.started_at and kept.started_at == kept.stage_entered_at
