"""Propose a rollout from a page."""

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.models import Entry
from policies_app.models import Environment, Workload
from rollout_app.engine.states import State
from rollout_app.models import Plan, Rollout
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People

PROPOSE = "/console/rollouts/propose/?workload=summaries"


def filled(workload: Workload, environment: Environment, **changes: Any) -> dict[str, Any]:
    return {
        "environment": environment.name,
        "candidate": 2,
        "plan": Plan.objects.get(name="standard").pk,
        "reason": "cheaper",
    } | changes


@pytest.mark.parametrize("roles", [["viewer"], ["approver", "operator"], ["editor"]])
def test_it_requires_an_editor_of_the_owning_team(
    people: People, summaries: Workload, production: Environment, roles: list[str]
) -> None:
    response = people("tom", *roles).post(PROPOSE, filled(summaries, production))
    assert response.status_code == 403
    assert not Rollout.objects.exists()


def test_it_requires_the_editor_role_in_that_environment(
    people: People, summaries: Workload, production: Environment
) -> None:
    builders.environment("staging")
    client = people("maria", "editor", environment="staging", team=summaries.owner)
    assert "No environment to choose" in text(client.get(PROPOSE))
    assert client.post(PROPOSE, filled(summaries, production)).status_code == 404  # and she cannot see it
    people("maria", "viewer", environment=production.name)
    assert client.post(PROPOSE, filled(summaries, production)).status_code == 403
    assert Entry.objects.filter(outcome="refused").count() == 1
    assert not Rollout.objects.exists()


def test_it_proposes_and_shows_what_comes_next(
    people: People, summaries: Workload, production: Environment
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    response = client.post(PROPOSE, filled(summaries, production), follow=True)
    rollout = Rollout.objects.get()
    assert (rollout.state, rollout.plan_name, rollout.proposer_label) == (
        State.AWAITING_APPROVAL,
        "standard",
        "maria",
    )
    assert "It is waiting for another person" in text(response)


def test_it_schedules(people: People, summaries: Workload, production: Environment) -> None:
    at = (timezone.now() + timedelta(days=2)).replace(second=0, microsecond=0)
    form = filled(summaries, production, scheduled_for=f"{at:%Y-%m-%dT%H:%M}")
    people("maria", "editor", team=summaries.owner).post(PROPOSE, form)
    assert Rollout.objects.get().scheduled_for == at


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": " "}, "This field is required"),
        ({"plan": 0}, "Select a valid choice"),
        ({"candidate": 0}, "Select a valid choice"),
        ({"scheduled_for": "2020-01-01T00:00"}, "This is in the past"),
        ({"scheduled_for": "soon"}, "Enter a valid date/time"),
        ({"scheduled_for": "9999-12-31T23:59-12:00"}, "Enter a valid date/time"),
        ({"scheduled_for": "0001-01-01T00:00+12:00"}, "Enter a valid date/time"),
    ],
)
def test_it_refuses_an_incomplete_or_invalid_proposal(
    people: People, summaries: Workload, production: Environment, changes: dict[str, Any], said: str
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    response = client.post(PROPOSE, filled(summaries, production, **changes))
    assert response.status_code == 422
    assert said in text(response)
    assert not Rollout.objects.exists()


def test_it_refuses_a_version_that_is_already_served(
    people: People, summaries: Workload, production: Environment
) -> None:
    form = filled(summaries, production, candidate=1)
    response = people("maria", "editor", team=summaries.owner).post(PROPOSE, form)
    assert response.status_code == 422
    assert "already serves version 1 of summaries" in text(response)


def test_the_form_starts_with_the_version_named_in_the_link(people: People, summaries: Workload) -> None:
    client = people("maria", "editor", team=summaries.owner)
    form = client.get(f"{PROPOSE}&candidate=2&environment=production").context["form"]
    assert form.initial["candidate"].number == 2
    assert form.initial["environment"].name == "production"


def test_without_a_workload_it_asks_for_one_of_the_persons_teams(people: People, summaries: Workload) -> None:
    address = "/console/rollouts/propose/"
    assert "?workload=summaries" in text(people("maria", "editor", team=summaries.owner).get(address))
    assert "?workload=summaries" in text(people("ada", "admin").get(address))
    for name, role in (("tom", "editor"), ("vic", "viewer")):
        assert "No workload to choose" in text(people(name, role).get(address))


def test_it_is_offered_to_editors_only(people: People, summaries: Workload) -> None:
    assert "Propose a rollout" in text(people("maria", "editor").get("/console/rollouts/"))
    assert "Propose a rollout" not in text(people("vic", "viewer", "operator").get("/console/rollouts/"))


def test_the_served_version_is_no_candidate(
    people: People, summaries: Workload, production: Environment
) -> None:
    client = people("ada", "admin")
    form = client.get(f"{PROPOSE}&candidate=1").context["form"]
    assert [number for number, _ in form.fields["candidate"].choices] == [2]
    assert form.initial["candidate"].number == 2
    page = text(client.get(reverse("console:version", args=["summaries", 1])))
    assert "Propose a rollout" not in page and "Serve it in" not in page

    builders.served(builders.environment("staging"), summaries)  # version 3
    form = client.get(f"{PROPOSE}&environment=staging").context["form"]
    labels = dict(form.fields["candidate"].choices)
    assert list(labels) == [3, 2, 1]
    assert labels[3].endswith("(served in staging)") and labels[1].endswith("(served in production)")
    assert "served" not in labels[2] and form.initial["candidate"].number == 2


def test_without_another_version_it_offers_to_write_one(people: People, production: Environment) -> None:
    builders.served(production, builders.workload("letters"))
    page = text(people("ada", "admin").get(PROPOSE.replace("summaries", "letters")))
    assert "No other version" in page and "Candidate version" not in page
    assert reverse("console:new_version", args=["letters"]) in page


@pytest.mark.parametrize(("roles", "offered"), [(["editor"], False), (["editor", "operator"], True)])
def test_before_anything_is_served_it_leads_to_the_form_that_serves(
    people: People, production: Environment, roles: list[str], offered: bool
) -> None:
    workload = builders.workload("summaries")
    version = builders.version(workload)
    client = people("maria", *roles, team=workload.owner)
    serve = reverse("console:serve", args=["summaries", "production"])
    for address in (PROPOSE, reverse("console:version", args=["summaries", version.number])):
        assert (serve in text(client.get(address))) is offered
    builders.environment("staging")
    page = text(client.get(reverse("console:version", args=["summaries", 1])))
    assert ("Serve it in an environment" in page) is offered and serve not in page
