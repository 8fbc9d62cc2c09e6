"""The report of a shadow stage: it includes second stages, and compares cheap with strong by an exact paired test."""

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F
from django.urls import reverse
from scipy import stats

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from pointsman.reporting.histogram import middle
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.blast_radius.latency import projected_latency
from rollout_app.blast_radius.radius import radius_of, radius_of_candidate
from rollout_app.blast_radius.rehearsed import RehearsedRoute
from rollout_app.blast_radius.shadow_stage import _change, mirror_answer, shadow_stage_answer
from rollout_app.blast_radius.words import unknowns
from rollout_app.engine.evidence import MirrorSums, ShadowSums
from rollout_app.engine.shadow import SecondStageCosts
from rollout_app.engine.stats.paired import difference_interval, exact_p
from rollout_app.evaluation.second_stage import second_stage_costs
from rollout_app.models import ArmTotals, OutcomeBucket, Rollout
from rollout_app.review import rollups
from tests.blast_radius.test_radius import LARGE, SMALL, place, traffic, version
from tests.support.callers import Caller
from tests.support.outcomes import outcome
from tests.support.pages import text
from tests.support.people import logged_in

__all__ = ["place"]

Place = tuple[Environment, Workload]
STAGES = [
    {"mode": "shadow", "mirror_pcm": 10_000},
    {"mode": "percentage", "share_pcm": 5_000},
    {"mode": "full"},
]
ENDS = {"n": 100, "both": 80, "only_candidate": 2, "only_baseline": 12, "neither": 6}


def shadowed(place: Place, **mirror: int) -> Rollout:
    """All strong → weak first, and the strong one for every answer that is not sure enough."""
    escalate = {"max": 1, "to": "large", "when": "response.confidence < 0.7"}
    candidate = version(place[1], default="small", rules=[], escalate=escalate)
    rollout = actions.propose_rollout(*place, candidate, plan=STAGES, reason="r", actor=SYSTEM)
    rollout = actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    for endpoint in ("/a", "/b"):
        outcome(
            *place,
            clock.now().replace(second=0, microsecond=0),
            endpoint=endpoint,
            model="large",
            rollout=str(rollout.pk),
            stage=0,
            shadow={"decisions": 100, "agreed": 0, "routes": {"large>small": 100}},
            mirror=dict(mirror) if endpoint == "/a" else {},
        )
    return rollout


def rehearse(rollout: Rollout, **figures: Any) -> None:
    """A minute of the shadow stage, as the engine reads it."""
    ArmTotals.objects.create(
        environment=rollout.environment, workload=rollout.workload, rollout=str(rollout.pk), stage=0,
        arm="baseline", version=rollout.baseline.number,
        minute=clock.now().replace(second=0, microsecond=0), tasks=100, **figures,
    )  # fmt: skip


def test_a_policy_that_may_escalate_everything_does_not_move_everything_to_the_weak_model(
    place: Place,
) -> None:
    traffic(place)
    answer = shadow_stage_answer(shadowed(place))
    asked = answer["decided"]["asked"]
    assert asked[SMALL] == {"low": 1, "high": 1, "expected": 1}
    assert asked[LARGE] == {"low": 0, "high": 1, "expected": None}
    change = answer["decided"]["change_a_day_nusd"]
    assert change["low"] < 0 < change["high"] and change["expected"] is None
    assert any("unknown how many tasks will be escalated" in sentence for sentence in answer["unknown"])


def test_it_distinguishes_endpoints_and_rules(place: Place) -> None:
    traffic(place)
    answer = shadow_stage_answer(shadowed(place, **ENDS))
    assert [row["endpoint"] for row in answer["by_endpoint"]] == ["/a", "/b"]
    first, second = answer["by_endpoint"]
    assert first["agreement"] == 0 and first["mirror"]["tasks"] == 100 and second["mirror"] is None
    assert first["first_choices"] == [{"served": "large", "candidate": "small", "share": 1}]
    assert [row["rule"] for row in answer["by_rule"]] == ["default"]


def test_it_reports_latencies_only_of_models_with_enough_answers(place: Place) -> None:
    traffic(place)
    assert set(shadow_stage_answer(shadowed(place))["latency_ms"]) == {LARGE}


def timed(place: Place, model: str, bucket: int, **fields: Any) -> None:
    """Tasks of the hour before the last one, each as slow as the middle of a bucket."""
    at = clock.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    histogram = {"zero": 0, "counts": {str(bucket): 200}}
    outcome(*place, at, tasks=200, model=model, endpoint="/timed", latency_histogram=histogram, **fields)
    rollups.refresh()


def test_the_change_of_latency_includes_the_second_stage(place: Place) -> None:
    """The weak model takes 2^(5.03) ms, the strong one 2^(6.28) ms. The candidate asks the weak one first."""
    other = version(place[1], default="small", rules=[])
    timed(place, "large", 100)
    timed(place, "small", 80, version=other.number, rule="default")
    rollout = shadowed(place)
    found = shadow_stage_answer(rollout)["latency_change"]
    weak, strong = middle(80), middle(100)
    assert found["now_ms"] == pytest.approx(strong) and found["unmeasured"] == []
    assert found["candidate_ms"]["low"] == pytest.approx(weak)
    assert found["candidate_ms"]["high"] == pytest.approx(weak + strong)
    assert found["change_ms"]["high"] == pytest.approx(weak)
    assert "between" in found["sentence"] and found["sentence"].endswith("now.")


def test_it_says_how_far_chance_may_move_the_shares_of_a_short_shadow(place: Place) -> None:
    rollout = shadowed(place)
    few = " ".join(shadow_stage_answer(rollout)["unknown"])
    assert "come from 200 shadow decisions. The share that moves may be off by 0.9 points by chance" in few
    rehearsed = {("/a", "default"): RehearsedRoute(decisions=50_000, routes={("large", "small"): 50_000})}
    many = replace(radius_of(rollout), rehearsed=rehearsed)
    assert not any("by chance" in sentence for sentence in unknowns(many))


def test_the_reference_names_every_field(place: Place) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "rollouts.md").read_text()
    section = page.split("## The shadow report")[1].split("\n## ")[0]
    answer = shadow_stage_answer(shadowed(place))
    named = {*answer, *answer["decided"], *answer["latency_change"], *answer["mirror_brake"]}
    assert {name for name in named if f"`{name}`" not in section} == set()


def test_the_latency_of_a_model_that_never_served_is_unknown(place: Place) -> None:
    timed(place, "large", 100)
    found = shadow_stage_answer(shadowed(place))["latency_change"]
    assert found["now_ms"] == pytest.approx(middle(100))
    assert (found["candidate_ms"], found["change_ms"], found["unmeasured"]) == (None, None, [SMALL])
    assert "unknown" in found["sentence"] and SMALL in found["sentence"]


def change_of(place: Place) -> dict[str, Any]:
    """The change of latency of a candidate that asks the weak model first, then the strong one."""
    escalate = {"max": 1, "to": "large", "when": "response.confidence < 0.7"}
    candidate = version(place[1], default="small", rules=[], escalate=escalate)
    found: dict[str, Any] = _change(projected_latency(radius_of_candidate(*place, candidate)))
    return found


def test_answers_of_the_current_hour_are_timed(place: Place) -> None:
    """It once said "fewer than 100 timed answers" after 1,000: latencies are rolled up when the hour is over."""
    now = clock.now().replace(second=0, microsecond=0)
    outcome(*place, now, tasks=600, model="large")
    outcome(*place, now, tasks=600, model="small", rule="pin")
    rollups.refresh()
    found = change_of(place)
    assert (found["now_ms"], found["unmeasured"]) == (pytest.approx(middle(100)), [])
    assert found["sentence"].startswith("Mean latency: between ")


def test_answers_after_the_first_move_are_not_of_the_time_before(place: Place) -> None:
    now = clock.now().replace(second=0, microsecond=0)
    outcome(*place, now - timedelta(minutes=9), tasks=600, model="large")
    rollout = shadowed(place)
    Rollout.objects.filter(pk=rollout.pk).update(
        stages=[{"mode": "full"}], started_at=now - timedelta(minutes=5)
    )
    outcome(*place, now, tasks=600, model="small", version=rollout.candidate.number)
    found = _change(projected_latency(radius_of(Rollout.objects.get(pk=rollout.pk))))
    assert found["unmeasured"] == [SMALL]
    assert found["sentence"] == (
        "The change in latency is unknown. In the 7 days before the candidate gets traffic, "
        f"{SMALL} answered no task."
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"tasks": 60},
            f"{SMALL} answered 60 tasks on the first attempt, 60 of them with a known latency; 100",
        ),
        (
            {"tasks": 400, "latency_histogram": {"zero": 0, "counts": {"80": 99}}},
            f"{SMALL} answered 400 tasks on the first attempt, 99 of them with a known latency; 100 are needed.",
        ),
        (
            {"tasks": 400, "latency_histogram": {"zero": 0, "counts": {}}},
            f"{SMALL} answered 400 tasks on the first attempt, but routers reported no latency.",
        ),
        (
            {"tasks": 1_400, "rule": "default"},
            f"{SMALL} answered 1,400 tasks, but none on the first attempt.",
        ),
        (
            {"tasks": 1_400, "escalations": 20},
            f"{SMALL} answered 1,380 tasks on the first attempt, 0 of them with a known latency; 100 are needed.",
        ),
    ],
)
def test_it_says_what_is_missing_to_know_the_latency(place: Place, given: dict[str, Any], why: str) -> None:
    """Each was "fewer than 100 timed answers", also after 1,400 answers to other models' tasks."""
    timed(place, "large", 100)
    at = clock.now().replace(second=0, microsecond=0) - timedelta(hours=3)
    outcome(*place, at, **({"model": "small", "rule": "pin"} | given))
    rollups.refresh()
    found = change_of(place)
    assert found["unmeasured"] == [SMALL] and why in found["sentence"]


@pytest.mark.parametrize(
    ("histogram", "why"),
    [
        ({}, "routers reported no latency for the 5,000 tasks of the baseline."),
        (
            {"zero": 0, "counts": {"100": 7}},
            "the baseline answered 5,000 tasks, 7 of them with a known latency;",
        ),
    ],
)
def test_it_says_what_is_missing_of_the_baseline(place: Place, histogram: dict[str, Any], why: str) -> None:
    """Each was "too few tasks of the week before were timed". Other versions timed both models."""
    other = version(place[1], default="small", rules=[])
    for model in ("small", "large"):
        timed(place, model, 100, version=other.number, rule="pin")
    at = clock.now().replace(second=0, microsecond=0) - timedelta(hours=3)
    outcome(*place, at, tasks=5_000, model="large", latency_histogram=histogram)
    rollups.refresh()
    found = change_of(place)
    assert (found["now_ms"], found["unmeasured"]) == (None, []) and why in found["sentence"]


def test_cheap_against_strong_is_paired(place: Place) -> None:
    found = mirror_answer([MirrorSums(**ENDS, candidate_cost_nusd=500, baseline_cost_nusd=9_000)])
    assert found is not None
    assert found["difference"] == pytest.approx(-0.10)
    assert found["p_value"] == pytest.approx(stats.binomtest(2, 14).pvalue)
    assert found["low"] < -0.10 < found["high"] < 0
    assert found["spent_nusd"] == 500


def test_a_mirror_without_costs_has_none(place: Place) -> None:
    found = mirror_answer([MirrorSums(**ENDS)])
    assert found is not None and found["spent_nusd"] is None
    assert mirror_answer([]) is None and mirror_answer([MirrorSums()]) is None


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 1), (3, 3), (2, 9), (40, 17), (500, 400)])
def test_the_exact_test_is_the_binomial_test(lost: int, won: int) -> None:
    expected = stats.binomtest(min(lost, won), lost + won).pvalue if lost + won else 1.0
    assert exact_p(lost, won) == pytest.approx(expected)
    assert exact_p(won, lost) == exact_p(lost, won)


def test_the_interval_of_a_paired_difference_holds_its_level() -> None:
    drawn, held = random.Random(5), 0
    for _ in range(600):
        lost = won = 0
        for _ in range(80):
            x = drawn.random()
            lost, won = lost + (x < 0.10), won + (0.10 <= x < 0.14)
        interval = difference_interval(80, lost, won)
        assert interval is not None
        held += interval[0] <= -0.06 <= interval[1]
    assert held / 600 > 0.93
    assert difference_interval(0, 0, 0) is None


def test_the_api_returns_it(place: Place) -> None:
    traffic(place)
    rollout = shadowed(place, **ENDS)
    answer: dict[str, Any] = Caller("viewer")("GET", f"rollouts/{rollout.pk}/shadow").json()
    assert answer["mirror"]["p_value"] < 0.05 and answer["decided"]["basis"] == "shadow"
    assert "agreement" in answer and "route_shift" in answer


def test_braked_mirrors_are_shown_in_the_report_and_on_the_page(place: Place) -> None:
    traffic(place)
    rollout = shadowed(place, **ENDS, failed=9, braked=31)
    rehearse(rollout, shadow={"decisions": 100, "agreed": 0}, mirror={**ENDS, "failed": 9, "braked": 31})
    answer = shadow_stage_answer(rollout)
    assert answer["mirror_brake"] == {"failed": 9, "braked": 31}
    page = text(logged_in("vera", "viewer").get(reverse("console:rollout", args=[rollout.pk])))
    assert "Mirrors without an answer" in page and "9 tasks" in page
    assert "Not mirrored, because mirrors failed or hung" in page and "31 tasks" in page


def test_the_gate_and_the_report_include_the_same_second_stages(place: Place) -> None:
    traffic(place)
    rollout = shadowed(place)
    change, now = (
        shadow_stage_answer(rollout)["decided"][name] for name in ("change_a_day_nusd", "cost_a_day_nusd")
    )
    costs = second_stage_costs(rollout.pk, ShadowSums(decisions=200))
    assert costs is not None and costs.low is not None and costs.high is not None
    assert (costs.low, costs.high) == pytest.approx((change["low"] / now, change["high"] / now))
    assert costs.low < 0 < costs.high and costs.expected is None
    told = ShadowSums(decisions=200, candidate_whole=200)
    assert second_stage_costs(rollout.pk, told) is None, "the routers reported all calls"


def test_a_candidate_without_a_second_stage_is_judged_by_its_first_calls(place: Place) -> None:
    candidate = version(place[1], default="small", rules=[])
    rollout = actions.propose_rollout(*place, candidate, plan=STAGES, reason="r", actor=SYSTEM)
    assert second_stage_costs(rollout.pk, ShadowSums(decisions=200)) is None


def test_without_traffic_the_cost_of_a_second_stage_is_unknown(place: Place) -> None:
    escalate = {"max": 1, "to": "large", "when": "response.confidence < 0.7"}
    candidate = version(place[1], default="small", rules=[], escalate=escalate)
    rollout = actions.propose_rollout(*place, candidate, plan=STAGES, reason="r", actor=SYSTEM)
    assert second_stage_costs(rollout.pk, ShadowSums(decisions=200)) == SecondStageCosts()


def test_minutes_stamped_before_the_start_count(place: Place) -> None:
    """A replay's routers stamp an hour within a minute, and clocks may be wrong. Reports still name the rollout."""
    traffic(place)
    rollout = shadowed(place)
    rehearse(rollout)
    for rows in (OutcomeBucket.objects, ArmTotals.objects):
        rows.filter(rollout=str(rollout.pk)).update(minute=F("minute") - timedelta(hours=12))
    answer = shadow_stage_answer(rollout)
    assert (answer["decided"]["basis"], len(answer["by_endpoint"])) == ("shadow", 2)


def test_without_shadow_decisions_it_reports_nothing(place: Place) -> None:
    candidate = version(place[1], default="small", rules=[])
    rollout = actions.propose_rollout(*place, candidate, plan=STAGES, reason="r", actor=SYSTEM)
    answer = shadow_stage_answer(rollout)
    assert (answer["by_endpoint"], answer["mirror"], answer["latency_ms"]) == ([], None, {})
    assert (answer["latency_change"]["now_ms"], answer["latency_change"]["change_ms"]) == (None, None)
    assert answer["decided"]["change_a_day_nusd"] is None
