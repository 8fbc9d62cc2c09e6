"""A dry run reports what other margins would have done to a rollout, and agrees with the engine."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from controlplane.access.models import Role
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import InvalidInput
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.engine.states import State
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import Rollout
from rollout_app.rehearsal.dry_run import dry_run
from tests.support import places
from tests.support.api_client import person, send
from tests.support.places import BEN, PLAN
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db


def test_it_reports_the_effect_of_other_margins() -> None:
    rollout = places.started(plan=PLAN[1:])
    rollout = actions.pause_rollout(rollout, actor=BEN, reason="only gather")
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=10))
    traffic.minutes(60, tasks=400, candidate=0.85)
    viewer = person("viewer", Role.VIEWER)
    path = f"rollouts/{rollout.pk}/dry-run"
    strict = send(viewer, "post", path, {}).json()
    assert strict["rolled_back"]["guardrails"] == ["failure"]
    assert "it would have rolled back at" in strict["sentence"] and "Failures +" in strict["sentence"]
    lax = {"guardrails": [{"metric": "failure", "margin": 0.5}]}
    spared = send(viewer, "post", path, lax).json()
    assert spared["rolled_back"] is None
    assert "it would not have rolled back in" in spared["sentence"]
    assert "failures +50.0 points" in spared["sentence"]
    bad = send(viewer, "post", path, {"guardrails": [{"metric": "vibes"}]})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_input")
    assert Rollout.objects.get(pk=rollout.pk).state == State.PAUSED


def test_without_a_closed_window_there_is_nothing_to_judge() -> None:
    told = dry_run(places.proposed(), [])
    assert told["rolled_back"] is None and told["sentence"].startswith("There is nothing to judge")


def test_minutes_that_are_still_open_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it "would have rolled back" at a time that had not come yet."""
    rollout, traffic = gathering()
    rollout.workload.outcome_lag_s = 3_600
    traffic.minute = clock.now() - timedelta(minutes=6)
    traffic.minutes(5, tasks=400, candidate=0.3)
    told = dry_run(rollout, [])
    assert told["rolled_back"] is None and told["sentence"].startswith("There is nothing to judge")
    later = clock.now() + timedelta(hours=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert dry_run(rollout, [])["rolled_back"]["at"] < later


def test_windows_of_one_arm_are_nothing_to_judge() -> None:
    """Regression: in shadow it said that it would not have rolled back in so many windows."""
    rollout = places.started()
    assert rollout.stages[rollout.stage]["mode"] == "shadow"
    Traffic(rollout, start=clock.now() - timedelta(hours=10)).minutes(10)
    told = dry_run(rollout, [])
    assert (
        told["sentence"]
        == "There is nothing to judge: no window of this rollout with both arms has closed yet."
    )


def test_a_guardrail_given_twice_is_refused() -> None:
    """Regression: the second entry silently replaced the first."""
    twice = [{"metric": "failure", "margin": 0.01}, {"metric": "failure", "enabled": False}]
    with pytest.raises(InvalidInput, match="failure is given twice"):
        dry_run(places.started(plan=PLAN[1:]), twice)
    bounded = {"metric": "failure", "bound": 0.2}
    assert dry_run(places.proposed(), [twice[0], bounded])["rolled_back"] is None


def test_a_dry_run_works_on_the_command_line() -> None:
    rollout = places.started(plan=PLAN[1:])
    rollout = actions.pause_rollout(rollout, actor=BEN, reason="only gather")
    Traffic(rollout, start=clock.now() - timedelta(hours=10)).minutes(60, tasks=400, candidate=0.87)

    def told(*given: str) -> str:
        out = StringIO()
        call_command("dry_run", str(rollout.pk), *given, stdout=out)
        return out.getvalue()

    assert "it would have rolled back at" in told("--margin", "failure:1")
    assert "it would not have rolled back" in told("--margin", "failure:30")
    assert "it would not have rolled back" in told("--off", "failure")
    for wrong in (["--margin", "vibes:1"], ["--margin", "failure"], ["--margin", "failure:-1"]):
        with pytest.raises(CommandError):
            told(*wrong)
    with pytest.raises(CommandError, match="no rollout"):
        call_command("dry_run", "nonsense")


def gathering(margin: float | None = None) -> tuple[Rollout, Traffic]:
    """Return a running rollout with this margin on failures and no guardrail on latency."""

    def prepare(workload: Workload) -> None:
        actions.set_guardrail(workload, "latency_tail", actor=SYSTEM, enabled=False)
        if margin:
            actions.set_guardrail(workload, "failure", actor=SYSTEM, margin=margin)

    rollout = places.approved(
        plan=[{"mode": "percentage", "share_pcm": 30_000, "max_hours": None}, {"mode": "full"}],
        prepare=prepare,
    )
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=5)).before()
    rollout = actions.start_rollout(Rollout.objects.get(pk=rollout.pk), actor=BEN, reason="now")
    return rollout, traffic


def test_a_dry_run_matches_the_engine_with_that_margin() -> None:
    """Two rollouts with the same outcomes: the engine judges one minute by minute, the other is only recorded."""
    rollout, traffic = gathering(margin=0.01)
    for _ in range(120):
        traffic.minutes(tasks=400, candidate=0.89)
        if reconcile(rollout.pk) == "roll_back":
            break
    rollout.refresh_from_db()
    assert rollout.state == State.ROLLING_BACK
    entry = Entry.objects.get(action="rollout.roll_back", outcome="done")
    tallies = json.loads(bytes(entry.body))["evidence"]["judgement"]["strata"]

    other, traffic = gathering()
    first = traffic.minute.replace(second=0, microsecond=0)
    traffic.minutes(120, tasks=400, candidate=0.89)
    told = dry_run(other, [{"metric": "failure", "margin": 0.01}])
    assert told["rolled_back"]["candidate_tasks"] == tallies["0"]["candidate_tasks"]
    assert told["rolled_back"]["at"] == first + timedelta(minutes=tallies["0"]["strata"])
    assert [verdict["name"] for verdict in told["verdicts"]].count("latency_tail") == 0


def test_a_dry_run_without_changes_matches_the_rollout() -> None:
    rollout, traffic = gathering()
    traffic.minutes(20, tasks=400)
    reconcile(rollout.pk)
    told = dry_run(rollout, [])
    assert {verdict["name"]: verdict["weight"] for verdict in told["verdicts"]} == {
        guardrail["metric"]: guardrail["weight"]
        for guardrail in Rollout.objects.get(pk=rollout.pk).guardrails
    }


def test_a_dry_run_waits_for_outcomes_as_long_as_the_engine_does() -> None:
    rollout, traffic = gathering()
    traffic.minutes(20, tasks=400, candidate=0.3)
    at = dry_run(rollout, [])["rolled_back"]["at"]
    rollout.workload.outcome_lag_s = 900
    assert dry_run(rollout, [])["rolled_back"]["at"] == at + timedelta(minutes=15)
