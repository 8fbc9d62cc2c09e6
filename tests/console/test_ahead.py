"""What pages show about a candidate before it gets any traffic."""

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from controlplane.core import clock
from policies_app.models import Environment, Workload
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
        assert "The effect on success is unknown before tasks are tried" in page
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
