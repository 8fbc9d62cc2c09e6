"""What the engine does by itself while a rollout is paused, frozen or scheduled; and its transactions."""

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.actions import edit_environment, edit_workload
from policies_app.models import Revision
from rollout_app import actions
from rollout_app.engine.states import ACTIVE, State
from rollout_app.engine.stats.rates import HARM_GRID, SAFE_GRID, log_e_alone, margin_odds_ratio
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import Rollout, Transition, VerdictRecord
from rollout_app.outcomes import baseline
from tests.support import builders, places
from tests.support.places import ANNA, BEN, approve_stage
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db
PLAN: list[dict[str, Any]] = [
    {"mode": "percentage", "share_pcm": 20_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 50_000, "min_minutes": 0},
    {"mode": "full"},
]


def running(**traffic: Any) -> Rollout:
    rollout = places.started(plan=PLAN)
    places.router(rollout)
    Traffic(rollout, start=clock.now() - timedelta(hours=5)).minutes(**({"minutes": 6} | traffic))
    return rollout


def test_it_rolls_back_by_itself_while_paused() -> None:
    rollout = actions.pause_rollout(running(candidate=0.2), actor=BEN, reason="look")
    assert reconcile(rollout.pk) == "roll_back"
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLING_BACK
    steps = [(step.event, step.actor_label) for step in rollout.transitions.all()]
    assert steps[-2:] == [("pause", BEN.label), ("roll_back", SYSTEM.label)]


def test_it_rolls_back_by_itself_in_a_freeze() -> None:
    rollout = running(candidate=0.2)
    edit_environment(rollout.environment, actor=BEN, frozen_until=clock.now() + timedelta(days=1))
    assert reconcile(rollout.pk) == "roll_back"


def test_it_holds_while_paused_despite_good_evidence() -> None:
    rollout = actions.pause_rollout(running(minutes=60), actor=BEN, reason="look")
    assert reconcile(rollout.pk) == "hold"
    assert Rollout.objects.get(pk=rollout.pk).hold_code == "paused"


@pytest.mark.parametrize("change", [{"success_signal": "satisfaction"}, {"unit": "user"}])
def test_it_measures_the_baseline_only_since_its_success_signal_or_unit_last_changed(
    change: dict[str, Any],
) -> None:
    """Regression: what another signal had graded stayed in the reference for a week, and moved the margins."""
    rollout = places.approved(
        plan=PLAN, prepare=lambda workload: edit_workload(workload, actor=SYSTEM, reason="r", **change)
    )
    traffic = Traffic(rollout, start=clock.now() - timedelta(days=1)).before(success=0.5)
    rollout = actions.start_rollout(rollout, actor=BEN, reason="now")
    assert rollout.reference["outcomes"] == 0
    traffic.minute = clock.now() + timedelta(minutes=1)
    traffic.before(tasks=1_500)
    measured = baseline.reference(rollout, clock.now())
    assert measured.outcomes == 1_500 and measured.rates["failure"] < 0.15


def test_other_changes_of_a_workload_keep_what_was_measured() -> None:
    """A tolerance is applied to the histogram of latencies, so it needs no new measurement."""
    change: dict[str, Any] = {"latency_tolerance_ms": 400, "quality_bar": "0.95", "outcome_lag_s": 60}
    rollout = places.approved(
        plan=PLAN, prepare=lambda workload: edit_workload(workload, actor=SYSTEM, reason="r", **change)
    )
    Traffic(rollout, start=clock.now() - timedelta(days=1)).before()
    rollout = actions.start_rollout(rollout, actor=BEN, reason="now")
    assert rollout.reference["outcomes"] == 2_000
    assert rollout.reference["rates"]["latency_tail"] > 0.3


def test_while_it_calibrates_it_counts_what_it_has_so_far() -> None:
    """Regression: it said "there are 0" and took failures that had always been there for the provider's problem."""
    rollout = places.started(plan=PLAN, calibrated=False)
    places.router(rollout)
    Traffic(rollout, start=clock.now() - timedelta(minutes=20)).minutes(4)
    assert reconcile(rollout.pk) == "hold"
    rollout.refresh_from_db()
    assert rollout.hold_code == "calibrating"
    assert "there are 640" in rollout.hold_sentence
    assert "has problems too" not in rollout.hold_sentence + rollout.outlook
    assert rollout.outlook.startswith("360 more graded outcomes")


def test_a_scheduled_start_waits_for_the_end_of_a_freeze() -> None:
    at = clock.now() + timedelta(hours=1)
    rollout = places.approved(plan=PLAN, scheduled_for=at)
    edit_environment(rollout.environment, actor=BEN, frozen_until=clock.now() + timedelta(hours=3))
    assert reconcile(rollout.pk, now=at) == "hold"
    rollout.refresh_from_db()
    assert (rollout.state, rollout.hold_code) == (State.SCHEDULED, "frozen")
    edit_environment(rollout.environment, actor=BEN, frozen_until=None, reason="over")
    assert reconcile(rollout.pk, now=at) == "start"


def test_it_enters_a_stage_that_needs_an_approval_only_with_one() -> None:
    asking = [PLAN[0], {**PLAN[1], "approval": True}, PLAN[2]]
    rollout = places.started(plan=asking)
    places.router(rollout)
    Traffic(rollout, start=clock.now() - timedelta(hours=20)).minutes(90, tasks=400)
    assert reconcile(rollout.pk) == "hold"
    assert Rollout.objects.get(pk=rollout.pk).hold_code == "approval"
    approve_stage(rollout.pk, 1, actor=BEN, reason="on with it")
    assert reconcile(rollout.pk) == "advance"


@pytest.mark.parametrize("written", ["assignment", "history", "entry"])
@pytest.mark.parametrize("move", [actions.advance_rollout, actions.roll_back_rollout])
def test_a_crash_half_way_changes_nothing(written: str, move: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, assignment, revision, history and audit entry commit together or not at all."""
    rollout = places.started(plan=PLAN)
    before = (
        Rollout.objects.filter(pk=rollout.pk).values().get(), places.assignment(rollout).revision,
        Revision.objects.count(), Transition.objects.count(), Entry.objects.filter(outcome="done").count(),
    )  # fmt: skip

    def dies(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    next_step = {
        "assignment": "rollout_app.actions.transitions.keep_history",
        "history": "rollout_app.actions.transitions.log.record",
        "entry": "rollout_app.actions.transitions.transaction.on_commit",
    }
    monkeypatch.setattr(next_step[written], dies)
    with pytest.raises(KeyboardInterrupt):
        move(Rollout.objects.get(pk=rollout.pk), actor=SYSTEM, reason="on")
    monkeypatch.undo()
    assert before == (
        Rollout.objects.filter(pk=rollout.pk).values().get(), places.assignment(rollout).revision,
        Revision.objects.count(), Transition.objects.count(), Entry.objects.filter(outcome="done").count(),
    )  # fmt: skip
    move(Rollout.objects.get(pk=rollout.pk), actor=SYSTEM, reason="on")


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_the_database_refuses_a_second_active_rollout_of_a_place(state: State) -> None:
    first = places.started(plan=PLAN)
    second = actions.propose_rollout(
        first.environment, first.workload, builders.version(first.workload), plan=PLAN, reason="x", actor=ANNA
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        Rollout.objects.filter(pk=second.pk).update(state=state)


def test_a_verdict_can_be_recomputed_from_its_row() -> None:
    """Uses the formulas of the manual on the row's JSON and the fixed reference, without the engine's code."""
    rollout = running(
        minutes=30, baseline=0.93, candidate=0.86
    )  # no worse than before: the border is in the sums
    reconcile(rollout.pk)
    row = VerdictRecord.objects.filter(rollout=rollout, guardrail="failure").latest("evaluation")
    stored = json.loads(json.dumps(row.data))
    reference = Rollout.objects.get(pk=rollout.pk).reference
    sums = dict(stored["sums"])["all"]
    assert row.stage == 0
    llr = dict(sums["llr"])

    numerator, denominator = sums["mh"]
    assert stored["estimate"] == pytest.approx(numerator / denominator)
    since = math.fsum(weight * math.exp(llr[psi] / reference["deff"]) for psi, weight in HARM_GRID)
    assert stored["log_e_harm"] == pytest.approx(math.log(0.85 * since + 0.15))

    margin = min(0.2, 0.02 / 0.5)  # the harm that the next stage's half of the traffic may bear
    assert stored["stage_margin"] == pytest.approx(margin)
    border = margin_odds_ratio(reference["rates"]["failure"], margin)
    assert border is not None
    psi_m = min(llr, key=lambda psi: abs(psi - border))
    grid = [(psi, weight) for psi, weight in SAFE_GRID if psi < psi_m]
    total = sum(weight for _, weight in grid)
    compared = math.log(
        sum(w / total * math.exp((llr[psi] - llr[psi_m]) / reference["deff"]) for psi, w in grid)
    )
    n, x = sums["candidate"]["n"], sums["candidate"]["x"]
    alone = log_e_alone(n, x, margin, reference["rates"]["failure"], reference["deff"])
    assert stored["log_e_safe"] == pytest.approx(max(compared, alone))
    harmful = stored["estimate"] >= 0.02 and stored["log_e_harm"] + math.log(0.30) >= math.log(20)
    assert row.verdict == (
        "fail" if harmful else "pass" if stored["log_e_safe"] >= math.log(20) else "inconclusive"
    )
