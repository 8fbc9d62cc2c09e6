"""The list of rollouts, the page of one, and the part of it that refreshes itself."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.core.actors import SYSTEM
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE
from policies_app.actions import edit_environment, pin
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.apps import _save_plans
from rollout_app.console.presenters import _guardrail_row, guardrail_rows
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import State
from rollout_app.engine.verdicts import SliceVerdict
from rollout_app.models import ArmTotals, Plan, Rollout
from tests.support.evidence_builders import ledger
from tests.support.pages import text
from tests.support.people import ONE_STEP, People, actor_of, approve, approve_stage, proposed, running

LIVE = {"HX-Request": "true"}


def page_of(rollout: Rollout) -> str:
    return reverse("console:rollout", args=[rollout.pk])


def outcomes(rollout: Rollout, arm: str, tasks: int, successes: int, cost: int) -> None:
    """Write one minute of one arm, as the fold would."""
    ArmTotals.objects.create(
        environment=rollout.environment,
        workload=rollout.workload,
        rollout=str(rollout.pk),
        stage=0,
        arm=arm,
        version=1 if arm == "baseline" else 2,
        minute=timezone.now().replace(second=0, microsecond=0),
        tasks=tasks,
        successes=successes,
        failures=tasks - successes,
        cost_n=tasks,
        cost_sum=cost,
    )


@pytest.mark.parametrize(
    ("show", "shown"),
    [("", True), ("active", False), ("waiting", True), ("ended", False), ("nonsense", True)],
)
def test_the_list_is_filtered_by_state(
    people: People, summaries: Workload, production: Environment, show: str, shown: bool
) -> None:
    rollout = proposed(summaries, production)
    page = text(people("tom", "viewer").get("/console/rollouts/", {"show": show}))
    assert (page_of(rollout) in page) is shown


def test_the_list_shows_why_a_rollout_is_held(
    people: People, summaries: Workload, production: Environment, django_assert_max_num_queries: Any
) -> None:
    rollout = running(summaries, production)
    Rollout.objects.filter(pk=rollout.pk).update(hold_code="evidence", hold_sentence="not enough tasks yet")
    client = people("tom", "viewer")
    with django_assert_max_num_queries(20):
        page = text(client.get("/console/rollouts/"))
    assert "not enough tasks yet" in page
    assert "5\u202f% of tasks" in page


def test_the_page_shows_stages_arms_and_history(
    people: People, summaries: Workload, production: Environment, django_assert_max_num_queries: Any
) -> None:
    rollout = running(summaries, production)
    outcomes(rollout, "baseline", 1_000, 900, 400_000_000)
    outcomes(rollout, "candidate", 50, 40, 10_000_000)
    client = people("tom", "viewer")
    with django_assert_max_num_queries(33):  # with its blast radius, which the fragment does not have
        page = text(client.get(page_of(rollout)))
    assert "90.0\u202f%" in page and "80.0\u202f%" in page
    assert "−10.0\u202fpoints" in page
    assert "$0.000444" in page and "$0.000250" in page  # per success, not per task
    assert "Started" in page and "looks right" in page
    assert page.count("<canvas data-chart=") == 2


def test_the_page_shows_the_verdicts_of_the_last_evaluation(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    seen = ledger(looks=3, failure=0.2)
    failing = next(verdict for verdict in seen.judge(0).verdicts if verdict.name == "failure")
    assert failing.estimate is not None and failing.low is not None and failing.high is not None
    Rollout.objects.filter(pk=rollout.pk).update(evidence=seen.as_dict())
    page = text(people("tom", "viewer").get(page_of(rollout)))
    assert f"+{failing.estimate * 100:.1f}\u202fpoints" in page
    assert f"{failing.low * 100:+.1f} to {failing.high * 100:+.1f}\u202fpoints" in page
    assert page.count(">fail<") == 1


def test_the_page_lists_guardrails_before_the_first_evaluation(
    people: People, summaries: Workload, production: Environment
) -> None:
    page = text(people("tom", "viewer").get(page_of(running(summaries, production))))
    assert page.count(">no data<") == 8
    assert "No outcomes yet" in page


def test_the_fragment_is_small_and_needs_few_queries(
    people: People, summaries: Workload, production: Environment, django_assert_max_num_queries: Any
) -> None:
    rollout = running(summaries, production)
    client = people("tom", "approver", "operator")
    with django_assert_max_num_queries(16):
        response = client.get(page_of(rollout), headers=LIVE)
    assert response.status_code == 200
    assert "<html" not in text(response)
    assert 'data-part="head"' in text(response)  # the buttons follow the state
    with django_assert_max_num_queries(6):  # nothing is rendered
        again = client.get(page_of(rollout), headers={**LIVE, "If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_fragment_of_an_ended_rollout_stops_polling(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="worse")
    client = people("tom", "viewer")
    assert client.get(page_of(rollout), headers=LIVE).status_code == 200
    actions.confirm_rolled_back(
        rollout, actor=SYSTEM, reason="all of them", readback={"confirmed": 0, "of": 0}
    )
    assert client.get(page_of(rollout), headers=LIVE).status_code == 286


def test_a_rollback_shows_its_readback_and_its_reason(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="failures +12.4 points")
    readback = {"confirmed": 7, "of": 9, "stragglers": ["gateway-8", "gateway-9"]}
    Rollout.objects.filter(pk=rollout.pk).update(readback=readback)
    page = text(people("tom", "viewer").get(page_of(rollout)))
    assert "Rolling back: 7 of 9 routers confirmed" in page
    assert "failures +12.4 points" in page
    assert "gateway-8, gateway-9" in page


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_text(
    people: People, summaries: Workload, production: Environment, state: State
) -> None:
    rollout = running(summaries, production)
    now = timezone.now()
    Rollout.objects.filter(pk=rollout.pk).update(state=state, paused_at=now, ended_at=now)
    page = text(people("tom", "viewer").get(page_of(rollout)))
    assert page[page.index('id="live"') :].count('<div class="pm-note') == 1  # the banner is on all pages


def test_home_lists_what_waits_for_this_person_except_their_own(
    people: People, summaries: Workload, production: Environment
) -> None:
    proposed(summaries, production, by="maria")
    assert "1 rollout waits for you" in text(people("tom", "approver").get("/console/"))
    assert "waits for you" not in text(people("maria", "approver").get("/console/"))
    assert "waits for you" not in text(people("eva", "viewer").get("/console/"))


def test_home_lists_a_stage_that_waits_for_an_approval(
    people: People, summaries: Workload, production: Environment
) -> None:
    plan = [ONE_STEP[0], {**ONE_STEP[1], "approval": True}]
    rollout = proposed(summaries, production)
    actions.amend_rollout(rollout, actor=actor_of("maria"), reason="careful", plan=plan)
    approve(rollout)
    actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    client = people("tom", "approver", "operator")
    assert "1 rollout waits for you" in text(client.get("/console/"))
    assert "Nobody has approved entering" in text(client.get(page_of(rollout)))
    approve_stage(rollout, 1)
    assert "waits for you" not in text(client.get("/console/"))


def test_home_shows_active_rollouts_and_changes(
    people: People, summaries: Workload, production: Environment, django_assert_max_num_queries: Any
) -> None:
    rollout = running(summaries, production)
    Rollout.objects.filter(pk=rollout.pk).update(hold_sentence="calibrating")
    Heartbeat.objects.create(job=ENGINE, at=timezone.now())
    client = people("tom", "viewer")
    with django_assert_max_num_queries(33):
        page = text(client.get("/console/"))
    assert "1 rollout under way" in page
    assert "On hold: calibrating" in page
    assert "started v1 → v2 of summaries in production" in page


def test_charts_of_a_long_rollout_are_grouped(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    start = timezone.now() - timedelta(days=3)
    Rollout.objects.filter(pk=rollout.pk).update(started_at=start)
    row = {
        "environment": production,
        "workload": summaries,
        "rollout": str(rollout.pk),
        "stage": 0,
        "version": 1,
    }
    ArmTotals.objects.bulk_create(
        ArmTotals(
            **row, arm="baseline", minute=start + timedelta(minutes=n), tasks=1, successes=1, cost_sum=9
        )
        for n in range(0, 3 * 1440, 20)
    )
    client = people("tom", "viewer")
    page = client.get(reverse("console:rollout_figures", args=[rollout.pk]))
    drawn = json.loads(
        text(page).partition('id="chart-success-data" type="application/json">')[2].partition("<")[0]
    )
    # 72 hours of 3 tasks each: one point per 50 tasks, the rest in the last.
    assert len(drawn["lines"][0]["points"]) == 4


def test_a_scheduled_rollout_shows_its_start_and_what_holds_it(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = approve(proposed(summaries, production))
    later = timezone.now() + timedelta(hours=3)
    Rollout.objects.filter(pk=rollout.pk).update(scheduled_for=later)
    client = people("tom", "viewer")
    page = text(client.get(page_of(rollout)))
    assert "It starts automatically <time" in page and f"{later:%Y-%m-%d %H:%M:%S} UTC" in page
    sentence = "production is frozen until tomorrow: nothing starts or advances."
    Rollout.objects.filter(pk=rollout.pk).update(
        scheduled_for=later - timedelta(hours=4), hold_code="frozen", hold_sentence=sentence
    )
    page = " ".join(text(client.get(page_of(rollout))).split())
    assert "and starts as soon as nothing prevents it." in page
    assert f"On hold:</strong> {sentence}" in page


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (50_000, ""),
        (80_000, ""),
        (95_000, "Only 5 % of the tasks stay on the baseline for comparison"),
        (None, "Nothing is compared any more"),
    ],
)
def test_it_warns_if_a_stage_can_detect_little(
    people: People, summaries: Workload, production: Environment, share: int | None, says: str
) -> None:
    """The last percentage stage compares few tasks, and full compares none: no alarm there is no proof of health."""
    first = {"mode": "full"} if share is None else {"mode": "percentage", "share_pcm": share}
    plan = [first] if share is None else [first, {"mode": "full"}]
    rollout = actions.amend_rollout(
        proposed(summaries, production), actor=actor_of("maria"), reason="my own plan", plan=plan
    )
    approve(rollout)
    waiting = text(people("tom", "viewer").get(page_of(rollout))).replace("\u202f", " ")
    assert "for comparison" not in waiting and "Nothing is compared" not in waiting
    actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    page = text(people("tom", "viewer").get(page_of(rollout))).replace("\u202f", " ")
    assert says in page
    if not says:
        assert "for comparison" not in page


def test_it_shows_what_an_advance_needs_and_no_forecast_after_the_end(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    kept = ledger(looks=1, n=(30, 570)).as_dict()
    Rollout.objects.filter(pk=rollout.pk).update(
        evidence=kept, stages=kept["stages"], stage=1, guardrails=kept["guardrails"]
    )
    page = text(people("tom", "viewer").get(page_of(rollout))).replace("\u202f", " ")
    assert "8.0 points for 25 %" in page and "more tasks" in page
    rollout.refresh_from_db()
    actions.confirm_rolled_back(
        actions.roll_back_rollout(rollout, actor=SYSTEM, reason="bad"),
        actor=SYSTEM,
        reason="all",
        readback={},
    )
    page = text(people("tom", "viewer").get(page_of(rollout))).replace("\u202f", " ")
    assert "for 25 %" not in page and "more tasks" not in page


def test_home_shows_ready_own_and_unusual_rollouts(
    people: People, summaries: Workload, production: Environment
) -> None:
    approve(proposed(summaries, production))
    assert "1 rollout is ready to start" in text(people("tom", "operator").get("/console/"))
    assert "ready to start" not in text(people("eva", "viewer").get("/console/"))
    rollout = actions.start_rollout(Rollout.objects.get(), actor=SYSTEM, reason="now")
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="failures +12 points")
    actions.confirm_rolled_back(rollout, actor=SYSTEM, reason="all", readback={})
    mine = text(people("maria", "editor").get("/console/"))
    assert "Yours" in mine and "failures +12 points" in mine
    assert "Yours" not in text(people("tom", "operator").get("/console/"))
    pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    edit_environment(
        production, actor=SYSTEM, frozen_until=timezone.now() + timedelta(hours=2), freeze_reason="sale"
    )
    page = text(people("tom", "viewer").get("/console/"))
    assert "is pinned to large in production" in page and "incident 231" in page
    assert "production is frozen" in page and "sale" in page


def test_home_polls_with_its_tag(people: People, summaries: Workload, production: Environment) -> None:
    Heartbeat.objects.create(job=ENGINE, at=timezone.now())
    client = people("tom", "viewer")
    tag = client.get("/console/", headers=LIVE).headers["ETag"]
    assert client.get("/console/", headers={**LIVE, "If-None-Match": tag}).status_code == 304
    running(summaries, production)
    changed = client.get("/console/", headers={**LIVE, "If-None-Match": tag})
    assert changed.status_code == 200 and "1 rollout under way" in text(changed)
    assert client.get(reverse("console:spend")).status_code == 200


def test_a_rollback_offers_the_next_steps(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="worse")
    actions.confirm_rolled_back(rollout, actor=SYSTEM, reason="all", readback={})
    page = text(people("maria", "editor", team=summaries.owner).get(page_of(rollout)))
    assert "/console/workloads/summaries/versions/new/?from=2" in page and "Propose it again" in page
    assert "Propose it again" not in text(people("tom", "viewer").get(page_of(rollout)))


def test_the_proposal_mentions_one_under_way(
    people: People, summaries: Workload, production: Environment
) -> None:
    running(summaries, production)
    client = people("maria", "editor", team=summaries.owner)
    assert "A rollout is already running" in text(client.get("/console/rollouts/propose/?workload=summaries"))


def test_a_plan_and_a_time_can_be_changed_before_the_start(
    people: People, summaries: Workload, production: Environment
) -> None:
    _save_plans("default")
    rollout = approve(proposed(summaries, production))
    client = people("maria", "editor", team=summaries.owner)
    address = reverse("console:act", args=[rollout.pk, "amend"])
    later = timezone.now() + timedelta(days=2)
    plan = Plan.objects.get(name="cautious").pk
    form = {
        "reason": "after the sale",
        "seen": rollout.version,
        "plan": plan,
        "scheduled_for": f"{later:%Y-%m-%dT%H:%M}",
    }
    assert client.post(address, {**form, "scheduled_for": "2020-01-01T00:00"}).status_code == 422
    assert client.post(address, form).status_code == 302
    rollout.refresh_from_db()
    assert (rollout.state, rollout.plan_name) == (State.AWAITING_APPROVAL, "cautious")
    assert rollout.scheduled_for is not None


def test_a_guardrail_names_the_harmed_endpoints() -> None:
    judged = ledger(looks=3, failure=0.2).judge(0).verdicts[0]
    slices = (SliceVerdict("/tickets/summary", 0.12, 5.0, True), SliceVerdict("/chat", 0.0, 0.0, False))
    row = _guardrail_row(replace(judged, slices=slices, note="why"), "25 %", advances=False)
    assert row.hurt == ("/tickets/summary (+12.0\u202fpoints)",)
    assert row.note == "why"


@pytest.mark.parametrize("complete", [True, False])
def test_at_the_last_stage_the_guardrails_keep_the_margins_of_the_move_to_it(
    people: People, summaries: Workload, production: Environment, complete: bool
) -> None:
    """The history says that they were safe for this stage, so the table must not judge them by a stricter margin."""
    rollout = running(summaries, production)
    rollout.stages = [{**stage, "tolerance": 5} for stage in rollout.stages]
    rollout.save()
    rollout = actions.advance_rollout(rollout, actor=SYSTEM, reason="safe")
    if complete:
        rollout = actions.complete_rollout(rollout, actor=SYSTEM, reason="done")
    reference = Reference(2_000, {Metric.FAILURE: 0.05})
    rollout.evidence = Accumulator.open(
        map(Guardrail.from_dict, rollout.guardrails), map(Stage.from_dict, rollout.stages), reference
    ).as_dict()
    failure = next(row for row in guardrail_rows(rollout) if row.label == "Failures")
    assert (failure.margin, failure.required) == ("2.0\u202fpoints", "10.0\u202fpoints for full")
    assert failure.needed is None
