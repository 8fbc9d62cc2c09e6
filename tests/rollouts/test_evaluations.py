"""Batches of evaluations: same result as one by one, stored separately, reading only what is new."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane.audit.models import Entry
from controlplane.core import clock
from policies_app.models import Model, Workload
from rollout_app import actions
from rollout_app.engine.accumulator import FORMAT
from rollout_app.engine.decide import decide
from rollout_app.engine.holds import Evidence
from rollout_app.engine.states import State
from rollout_app.evaluation import evaluations, judging, reconcile
from rollout_app.models import ArmTotals, Rollout, VerdictRecord
from rollout_app.outcomes import minute_totals
from tests.support import places
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db
PLAN = [{"mode": "percentage", "share_pcm": 20_000, "min_tasks": 50}, {"mode": "full"}]


def running(
    candidate: float = 0.92, *, minutes: int = 3, plan: Any = PLAN, start: datetime | None = None
) -> tuple[Rollout, Traffic]:
    rollout = places.started(plan=plan)
    places.router(rollout)
    traffic = Traffic(rollout, start=start or clock.now() - timedelta(hours=5))
    return rollout, more(traffic, candidate=candidate, minutes=minutes)


def more(traffic: Traffic, **given: Any) -> Traffic:
    return traffic.minutes(**given)


def seen(rollout: Rollout) -> Any:
    """Return what an evaluation stored, without times."""
    row = Rollout.objects.get(pk=rollout.pk)
    verdicts = VerdictRecord.objects.filter(rollout=rollout).order_by("evaluation", "guardrail")
    return (
        row.state, row.stage, row.evaluations, row.hold_code, row.hold_sentence, row.outlook, row.evidence["sums"],
        list(verdicts.values_list("evaluation", "stage", "guardrail", "verdict", "data")),
    )  # fmt: skip


def test_a_batch_gives_the_same_result_as_single_evaluations() -> None:
    start = clock.now() - timedelta(hours=5)  # shared, so that both have the same minutes
    in_batch = [running(candidate, start=start)[0] for candidate in (0.92, 0.9, 0.2)]
    alone = [running(candidate, start=start)[0] for candidate in (0.92, 0.9, 0.2)]
    now = clock.now()
    assert sorted(reconcile.evaluate([rollout.pk for rollout in in_batch], now=now)) == sorted(
        [reconcile.reconcile(rollout.pk, now=now) for rollout in alone]
    )
    assert [seen(rollout) for rollout in in_batch] == [seen(rollout) for rollout in alone]
    assert {row.state for row in Rollout.objects.all()} == {State.RUNNING, State.ROLLING_BACK}


def test_a_batch_takes_as_many_queries_as_one_rollout() -> None:
    def queries(rollouts: list[Rollout]) -> int:
        with CaptureQueriesContext(
            connection,
        ) as asked:
            assert set(reconcile.evaluate([rollout.pk for rollout in rollouts])) == {"hold"}
        return len(asked)

    one, many = [running()[0]], [running()[0] for _ in range(4)]
    environments = {rollout.environment_id for rollout in many}
    # In addition, per environment: the clock, and the routers that polled.
    assert queries(many) - queries(one) <= 2 * (len(environments) - 1)


def test_it_counts_each_minute_once_in_any_batches() -> None:
    rollout, traffic = running(minutes=1)
    for _ in range(4):
        reconcile.reconcile(rollout.pk)
        reconcile.evaluate([rollout.pk])
        more(traffic)
    row = Rollout.objects.get(pk=rollout.pk)
    judged = sum(tally["candidate_tasks"] for tally in row.evidence["tallies"].values())
    minutes = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="candidate").order_by("minute")
    # The last was not evaluated, the one before is still open.
    closed = [minute.tasks for minute in minutes][:-2]
    assert judged == sum(closed)
    assert row.evaluations == len(closed)  # an evaluation without a new window is not counted


def test_it_stores_verdicts_when_one_changes() -> None:
    """Storing at every evaluation would be megabytes a day per rollout of unchanged values."""
    rollout, traffic = running(minutes=2)
    told: dict[int, dict[str, str]] = {}
    before: dict[str, str] = {}
    for _ in range(25):
        assert reconcile.reconcile(rollout.pk) in ("hold", "advance")
        row = Rollout.objects.get(pk=rollout.pk)
        now = {verdict.name: verdict.result.value for verdict in evaluations.judged(row).verdicts}
        if now != before:
            told[row.evaluations] = before = now
        if row.stage:
            break
        more(traffic)
    rows = VerdictRecord.objects.filter(rollout=rollout, evaluation__in=told)
    assert told == {
        look: dict(rows.filter(evaluation=look).values_list("guardrail", "verdict")) for look in told
    }
    acted = 1 if row.stage else 0  # verdicts are also stored when it acts
    assert (
        1
        < VerdictRecord.objects.filter(rollout=rollout).values("evaluation").distinct().count()
        <= len(told) + acted
    )
    assert len(told) < row.evaluations


def test_current_verdicts_match_the_last_stored_ones() -> None:
    rollout, _ = running(0.2)
    assert reconcile.reconcile(rollout.pk) == "roll_back"
    row = Rollout.objects.get(pk=rollout.pk)
    told = {
        v.guardrail: v.data for v in VerdictRecord.objects.filter(rollout=rollout, evaluation=row.evaluations)
    }
    now = {v.name: json.loads(evaluations.as_json(v)) for v in evaluations.judged(row).verdicts}
    for verdict in (*told.values(), *now.values()):
        verdict.pop("needed_tasks")  # computed only on demand
    assert told == now
    assert told["failure"]["result"] == "fail" and told["failure"]["low"] is not None


def test_bad_data_of_one_rollout_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    rollouts = [running()[0] for _ in range(5)]
    Rollout.objects.filter(pk=rollouts[2].pk).update(evidence={"format": FORMAT, "guardrails": [{}]})
    words = reconcile.sweep()
    assert words == {"hold": 4, "error": 1}
    failed = Rollout.objects.get(pk=rollouts[2].pk)
    assert (failed.state, failed.hold_code) == (State.RUNNING, "evaluation_failed")
    assert "evaluation failed" in failed.hold_sentence
    assert f"the evaluation of rollout {rollouts[2].pk} failed" in caplog.text
    assert VerdictRecord.objects.values("rollout").distinct().count() == 4


def test_it_rebuilds_sums_of_an_unknown_format() -> None:
    rollout, _ = running()
    reconcile.reconcile(rollout.pk)
    kept = Rollout.objects.get(pk=rollout.pk).evidence
    Rollout.objects.filter(pk=rollout.pk).update(evidence={**kept, "format": 1, "sums": {}})
    reconcile.reconcile(rollout.pk)
    assert Rollout.objects.get(pk=rollout.pk).evidence["sums"] == kept["sums"]


def test_it_stores_one_of_two_simultaneous_evaluations() -> None:
    rollout, _ = running()
    now = clock.now()
    subjects = evaluations.load([rollout.pk])
    first, second = (
        judging.judge(evaluations.load([rollout.pk]), now, judging.Fleets())[0] for _ in range(2)
    )
    assert evaluations.store(first, now) == {rollout.pk}
    assert evaluations.store(second, now) == set()
    assert Rollout.objects.get(pk=rollout.pk).evaluations == subjects[0].evaluations + 1
    assert VerdictRecord.objects.filter(rollout=rollout).values("evaluation").distinct().count() == 1


def test_it_drops_the_evaluation_of_a_rollout_that_moved_and_stores_the_others() -> None:
    (moved, _), (still, _) = running(), running()
    now = clock.now()
    taken, _ = judging.judge(evaluations.load([moved.pk, still.pk]), now, judging.Fleets())
    Rollout.objects.filter(pk=moved.pk).update(version=moved.version + 7)
    assert evaluations.store(taken, now) == {still.pk}
    assert set(VerdictRecord.objects.values_list("rollout", flat=True)) == {still.pk}
    assert Rollout.objects.get(pk=moved.pk).evaluated_at is None


def silent(rollout: Rollout, traffic: Traffic) -> None:
    """Add two minutes in which 15 tasks were decided for the candidate and none finishes."""
    more(traffic, minutes=2)
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="candidate")
    rows.filter(successes__gt=10).update(decided=15, tasks=0, tracked=0, successes=0, failures=0, cost_n=0)


def test_it_rolls_back_a_candidate_without_outcomes() -> None:
    rollout, traffic = running(minutes=0)
    silent(rollout, traffic)
    assert reconcile.reconcile(rollout.pk) == "hold"  # only 15 tasks are judged
    silent(rollout, traffic)
    assert reconcile.reconcile(rollout.pk) == "roll_back"
    assert "none of them has an outcome" in Rollout.objects.get(pk=rollout.pk).rollback_reason


def test_late_outcomes_of_judged_minutes_prevent_a_rollback_for_silence() -> None:
    rollout, traffic = running(minutes=0)
    silent(rollout, traffic)
    assert reconcile.reconcile(rollout.pk) == "hold"
    silent(rollout, traffic)
    first = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="candidate").earliest("minute")
    ArmTotals.objects.filter(pk=first.pk).update(tasks=15, tracked=15, ungraded=15)
    assert reconcile.reconcile(rollout.pk) == "hold"
    tally = Rollout.objects.get(pk=rollout.pk).evidence["tallies"]["0"]
    assert tally["candidate_expected"] > 20 and tally["candidate_tasks"] == 0  # late tasks are not judged


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Evidence]:
    """Record the evidence that each evaluation passes to `decide`."""
    seen: list[Evidence] = []

    def watched(view: Any, evidence: Evidence, *others: Any) -> Any:
        seen.append(evidence)
        return decide(view, evidence, *others)

    monkeypatch.setattr(judging, "decide", watched)
    return seen


@pytest.mark.parametrize("lag_s", [0, 900])
def test_it_knows_the_baselines_last_hour_without_reading_it_again(given: list[Evidence], lag_s: int) -> None:
    rollout, traffic = running(minutes=0, plan=[{"mode": "percentage", "share_pcm": 20_000, "min_minutes": 9_000},
                                                {"mode": "full"}])  # fmt: skip
    Workload.objects.update(outcome_lag_s=lag_s)
    for tasks in (200, 20, 200):  # a minute of 20 tasks waits for others
        for _ in range(30):
            more(traffic, tasks=tasks)
            reconcile.reconcile(rollout.pk)
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), arm="baseline").order_by("-minute")[:60]
    names = ("tasks", "successes", "failures", "errors", "escalations", "fallbacks", "retries")
    assert given[-1].baseline_last_hour.health == tuple(
        sum(getattr(row, name) for row in rows) for name in names
    )


def test_it_adds_up_the_shadow_stage_without_reading_it_again(given: list[Evidence]) -> None:
    rollout, traffic = running(plan=[{"mode": "shadow", "min_tasks": 9_000}, {"mode": "full"}], minutes=2)
    for _ in range(3):
        assert reconcile.reconcile(rollout.pk) == "hold"
        every, _ = minute_totals.shadow_and_mirror(rollout)
        assert given[-1].shadow.counts == every.counts
        more(traffic, minutes=2)
    shadow, *_ = Rollout.objects.get(pk=rollout.pk).evidence["rehearsed"]
    assert 0 < shadow[0] < every.decisions


def test_it_skips_rollouts_without_new_outcomes() -> None:
    (quiet, _), (busy, traffic) = running(), running()
    assert reconcile.sweep() == {"hold": 2}
    assert reconcile.sweep() == {"rest": 2}
    more(traffic)
    evaluated_at = Rollout.objects.get(pk=quiet.pk).evaluated_at
    ArmTotals.objects.filter(rollout=str(busy.pk)).update(received_at=clock.now() + timedelta(seconds=1))
    assert reconcile.sweep() == {"rest": 1, "hold": 1}
    assert Rollout.objects.get(pk=quiet.pk).evaluated_at == evaluated_at


SMALL = "openai/gpt-4o-mini"


def test_it_holds_with_the_reason_when_a_model_was_disabled() -> None:
    plan = [PLAN[0], {"mode": "percentage", "share_pcm": 50_000, "min_minutes": 0}, PLAN[1]]
    rollout, _ = running(0.92, minutes=60, plan=plan)
    Rollout.objects.update(stage_entered_at=clock.now() - timedelta(hours=5))
    Model.objects.filter(name=SMALL).update(enabled=False)
    assert reconcile.reconcile(rollout.pk) == "hold"
    row = Rollout.objects.get(pk=rollout.pk)
    assert (row.state, row.stage, row.hold_code) == ("running", rollout.stage, "conflict")
    assert f"uses {SMALL}, which is disabled in the catalogue: enable it" in row.hold_sentence


@pytest.mark.parametrize(
    ("unknown", "says"),
    [
        ("input_nusd_per_mtok", f"No price: {SMALL}."),
        ("output_nusd_per_mtok", f"No price: {SMALL}."),
        ("", "All models have prices, but routers report no tokens."),
    ],
)
def test_a_shadow_stage_without_costs_says_what_lacks_a_price(unknown: str, says: str) -> None:
    rollout = places.started()
    Traffic(rollout, start=clock.now() - timedelta(hours=5)).minutes(3, candidate_cost=0)
    if unknown:
        Model.objects.filter(name=SMALL).update(**{unknown: None})
    assert reconcile.reconcile(rollout.pk) == "hold"
    row = Rollout.objects.get(pk=rollout.pk)
    assert row.hold_code == "shadow"
    assert says in row.hold_sentence


@pytest.mark.parametrize(("candidate", "minutes", "word"), [(0.1, 6, "roll_back"), (0.92, 60, "advance")])
def test_the_entry_of_a_move_has_the_evidence_that_it_rests_on(
    candidate: float, minutes: int, word: str
) -> None:
    plan = [PLAN[0], {"mode": "percentage", "share_pcm": 50_000, "min_minutes": 0}, PLAN[1]]
    rollout, _ = running(candidate, minutes=minutes, plan=plan)
    Rollout.objects.update(stage_entered_at=clock.now() - timedelta(hours=5))
    assert reconcile.reconcile(rollout.pk) == word
    row = Rollout.objects.get(pk=rollout.pk)
    evidence = json.loads(bytes(Entry.objects.get(action=f"rollout.{word}").body))["evidence"]
    assert evidence["evaluation"] == row.evaluations == 1
    told = {verdict["name"]: verdict["result"] for verdict in evidence["judgement"]["verdicts"]}
    assert told == dict(VerdictRecord.objects.values_list("guardrail", "verdict"))
    assert evidence["reference"]["outcomes"] == row.reference["outcomes"]
    assert evidence["telemetry"].keys() >= {"candidate_decisions", "candidate_outcomes"}
    assert evidence.get("code") == ("guardrail" if word == "roll_back" else None)


def test_a_readback_rests_for_two_seconds_between_looks() -> None:
    rollout, _ = running()
    places.router(rollout)
    actions.roll_back_rollout(rollout, actor=places.BEN, reason="no")
    now = clock.now()
    assert reconcile.sweep(now=now) == {"hold": 1}
    row = Rollout.objects.get(pk=rollout.pk)
    assert (row.evaluated_at, row.wake_at) == (now, now + judging.SOON)
    assert reconcile.sweep(now=now + timedelta(seconds=1)) == {"rest": 1}
    assert reconcile.sweep(now=now + timedelta(seconds=2)) == {"hold": 1}
