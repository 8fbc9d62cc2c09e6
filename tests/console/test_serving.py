"""Serve a first version, pin, unpin: what an operator does from a workload's page."""

import pytest
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Environment, Workload
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People

PIN = "/console/workloads/summaries/production/pin/"
UNPIN = "/console/workloads/summaries/production/unpin/"


@pytest.mark.parametrize("address", [PIN, UNPIN, "/console/workloads/summaries/production/serve/"])
@pytest.mark.parametrize("role", ["viewer", "editor", "approver"])
def test_it_requires_the_operator_role(people: People, summaries: Workload, address: str, role: str) -> None:
    for method in ("get", "post"):
        response = getattr(people("tom", role), method)(address, {"reason": "x", "model_alias": "large"})
        assert response.status_code == 403
        assert "needs the role operator in production" in text(response)
    assert summaries.assignments.get().revision == 1


def test_it_pins(people: People, summaries: Workload) -> None:
    form = {"model_alias": "large", "reason": "incident 231"}
    response = people("tom", "operator").post(PIN, form, follow=True)
    served = summaries.assignments.get()
    assert (served.pin_model, served.pin_reason) == ("large", "incident 231")
    assert "summaries is pinned in production" in text(response)
    assert Entry.objects.get(action="assignment.pin").actor_label == "tom"


@pytest.mark.parametrize("reason", ["", "   "])
def test_a_pin_needs_a_reason(people: People, summaries: Workload, reason: str) -> None:
    response = people("tom", "operator").post(PIN, {"model_alias": "large", "reason": reason})
    assert response.status_code == 422
    assert "This field is required" in text(response)
    assert not summaries.assignments.get().pin_model


def test_only_a_model_of_the_served_policy_can_be_pinned(people: People, summaries: Workload) -> None:
    response = people("tom", "operator").post(PIN, {"model_alias": "huge", "reason": "x"})
    assert response.status_code == 422
    assert not summaries.assignments.get().pin_model


def test_it_unpins(people: People, summaries: Workload) -> None:
    actions.pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    client = people("tom", "operator")
    assert "incident 231" in text(client.get(UNPIN))
    assert client.post(UNPIN, {"reason": "over"}).status_code == 302
    assert not summaries.assignments.get().pin_model


def test_unpinning_without_a_pin_is_reported(people: People, summaries: Workload) -> None:
    response = people("tom", "operator").post(UNPIN, {"reason": "over"})
    assert response.status_code == 422
    assert "summaries is not pinned in production" in text(response)


def test_it_serves_a_first_version(people: People) -> None:
    builders.environment("staging")
    workload = builders.workload("triage")
    version = builders.version(workload)
    address = reverse("console:serve", args=["triage", "staging"])
    assert people("tom", "operator").post(address, {"version": version.pk, "reason": "go"}).status_code == 302
    assert workload.assignments.get().baseline == version


def test_a_second_first_version_is_refused_with_instructions(people: People, summaries: Workload) -> None:
    address = reverse("console:serve", args=["summaries", "production"])
    version = summaries.versions.get(number=2)
    response = people("tom", "operator").post(address, {"version": version.pk, "reason": "go"})
    assert response.status_code == 422
    assert "propose a rollout to move it to version 2" in text(response)
    assert summaries.assignments.get().baseline.number == 1


def test_a_workload_that_is_not_served_cannot_be_pinned(people: People, production: Environment) -> None:
    builders.workload("triage")
    response = people("tom", "operator").get("/console/workloads/triage/production/pin/")
    assert response.status_code == 404
    assert "production serves nothing for" in text(response)
