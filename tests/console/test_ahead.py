"""What pages show about a candidate before it gets any traffic."""

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.console import ahead
from rollout_app.models import Rollout
from rollout_app.review import rollups
from tests.support import builders
from tests.support.outcomes import outcome
from tests.support.pages import text
from tests.support.people import People, proposed, running

UNKNOWN = "There was no traffic in the last 7 days, so it is unknown what would move."


@pytest.fixture
def traffic(production: Environment, summaries: Workload) -> None:
    for day in range(7):
        at = clock.now() - timedelta(days=day, hours=23)
        outcome(production, summaries, at, endpoint="/tickets", tasks=400, cost=1_000_000)
    rollups.refresh()


def test_the_approval_shows_what_would_move_and_the_diff(
    people: People, traffic: None, production: Environment, summaries: Workload
) -> None:
    rollout = proposed(summaries, production)
    client = people("eva", "approver")
    address = reverse("console:act", args=[rollout.pk, "approve"])
    for headers in ({}, {"HX-Request": "true"}):
        page = text(client.get(address, headers=headers))
        assert "Blast radius" in page and "/tickets" in page
        assert f"Endpoints of team {summaries.owner.name}" in page
        assert "What changes" in page and "rules[heavy].when" in page
        assert "The effect on success is unknown until tasks are tried" in page
        # The form comes last, after the guardrails that will apply.
        parts = ["Blast radius", "What changes", "Guardrails in force", "Cost per success", 'name="reason"']
        assert sorted(parts, key=page.rindex) == parts


@pytest.mark.parametrize("name", ["start", "break-glass"])
def test_the_start_shows_the_same(
    people: People, production: Environment, summaries: Workload, name: str
) -> None:
    rollout = proposed(summaries, production)
    page = text(people("tom", "operator").get(reverse("console:act", args=[rollout.pk, name])))
    assert UNKNOWN in page and "What changes" in page


def test_a_pause_shows_nothing_about_it(people: People, production: Environment, summaries: Workload) -> None:
    rollout = proposed(summaries, production)
    page = text(people("tom", "operator").get(reverse("console:act", args=[rollout.pk, "pause"])))
    assert "Blast radius" not in page


def test_the_page_of_a_rollout_has_it_but_its_fragment_does_not(
    people: People, production: Environment, summaries: Workload
) -> None:
    client, address = (
        people("tom", "viewer"),
        reverse("console:rollout", args=[proposed(summaries, production).pk]),
    )
    assert UNKNOWN in text(client.get(address))
    assert UNKNOWN not in text(client.get(address, headers={"HX-Request": "true"}))


def test_the_proposal_shows_it(people: People, traffic: None, summaries: Workload) -> None:
    client = people("maria", "editor", team=summaries.owner)
    address = reverse("console:propose")
    page = text(client.get(address, {"workload": "summaries", "candidate": "2", "environment": "production"}))
    assert "Blast radius" in page and "/tickets" in page
    # If the link names no version, the newest one is selected in the form.
    newest = text(client.get(address, {"workload": "summaries"}))
    assert "Blast radius" in newest and "selected>v2" in newest


def test_the_proposal_shows_it_for_the_environment_that_the_form_selects(
    people: People, traffic: None, summaries: Workload
) -> None:
    builders.served(builders.environment("another"), summaries)
    client = people("maria", "editor", team=summaries.owner)
    address = reverse("console:propose")
    first = text(client.get(address, {"workload": "summaries"}))
    assert UNKNOWN in first, "another comes first and has no traffic"
    changed = text(
        client.get(address, {"workload": "summaries", "environment": "production", "candidate": "2"})
    )
    assert "/tickets" in changed and UNKNOWN not in changed


def test_before_any_evidence_the_guardrails_are_only_their_margins(
    people: People, production: Environment, summaries: Workload
) -> None:
    rollout = proposed(summaries, production)
    page = text(people("eva", "approver").get(reverse("console:act", args=[rollout.pk, "approve"])))
    assert "hold the rollout and roll it back" in page and "2.0" in page
    assert "no data" not in page


def test_a_failed_computation_does_not_prevent_an_approval(
    people: People, production: Environment, summaries: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(rollout: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(ahead, "radius_of", broken)
    rollout = proposed(summaries, production)
    response = people("eva", "approver").get(reverse("console:act", args=[rollout.pk, "approve"]))
    assert response.status_code == 200 and "It could not be computed" in text(response)
    assert "rules[heavy].when" in text(response)


def test_an_approval_of_a_stage_shows_the_evidence_so_far(
    people: People, production: Environment, summaries: Workload
) -> None:
    rollout = running(summaries, production)
    stages = [rollout.stages[0], {"mode": "full", "approval": True}]
    Rollout.objects.filter(pk=rollout.pk).update(stages=stages)
    client = people("eva", "approver")
    address = reverse("console:act", args=[rollout.pk, "approve-stage"])
    page = text(client.get(address))
    assert "Guardrails" in page and "Arms" in page and page.rindex("Arms") < page.rindex('name="reason"')
    # Opened next to the rollout's page, which already has them.
    assert "Arms" not in text(client.get(address, headers={"HX-Request": "true"}))


def test_the_approval_shows_the_plan_its_reason_and_the_harm_that_each_stage_accepts(
    people: People, production: Environment, summaries: Workload
) -> None:
    rollout = proposed(summaries, production)
    stages = [
        {"mode": "percentage", "share_pcm": 5_000, "min_minutes": 60, "min_tasks": 200},
        {"mode": "percentage", "share_pcm": 30_000, "approval": True},
        {"mode": "full", "tolerance": 5.0},
    ]
    Rollout.objects.filter(pk=rollout.pk).update(stages=stages, reason="Cheaper by half.")
    client, address = people("eva", "approver"), reverse("console:act", args=[rollout.pk, "approve"])
    for headers in ({}, {"HX-Request": "true"}):
        page = text(client.get(address, headers=headers)).replace("\u202f", " ")
        assert "Its own plan" in page and "Cheaper by half." in page
        assert "at least 1 h, 200 tasks" in page and "an approval" in page
        assert "×3.33: Failures 6.7 points" in page and "×5: Failures 10.0 points" in page
        assert "An operator may advance a stage without waiting for the evidence." in page
        assert "rolled back against the same baseline" not in page


def test_the_approval_names_the_rollout_in_which_the_candidate_was_rolled_back(
    people: People, production: Environment, summaries: Workload, traffic: None
) -> None:
    first = running(summaries, production)
    actions.roll_back_rollout(first, actor=SYSTEM, reason="failures +12.4 points")
    actions.confirm_rolled_back(first, actor=SYSTEM, reason="all", readback={"confirmed": 0, "of": 0})
    again = proposed(summaries, production)
    page = text(people("eva", "approver").get(reverse("console:act", args=[again.pk, "approve"])))
    assert reverse("console:rollout", args=[first.pk]) in page
    assert page.count("failures +12.4 points") == 2
    assert "The effect on success is unknown" not in page
