"""A form of the console that a rule refuses leaves one entry, like the action; invalid input leaves none."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access.models import Team
from controlplane.audit.models import Entry
from policies_app.documents.yaml_text import as_yaml
from policies_app.models import Workload
from tests.support import builders
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
MODEL = {"name": "a/b", "context_window": "1000", "price_source": "typed"}


@pytest.fixture
def served() -> Workload:
    workload = builders.workload("summaries")
    builders.served(builders.environment("production", four_eyes=False), workload)
    return workload


def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def refusals() -> list[str]:
    return list(Entry.objects.filter(outcome="refused").order_by("seq").values_list("action", flat=True))


def described(workload: Workload, **fields: Any) -> dict[str, Any]:
    return {
        "name": workload.name, "owner": workload.owner_id, "task_type": "chat", "difficulty": "mixed",
        "quality_bar": "0.9", "success_signal": "accuracy_check", "outcome_lag_s": 0, "unit": "request",
    } | fields  # fmt: skip


@pytest.mark.parametrize("name", ["summaries", " summaries "])
def test_a_taken_workload_name_is_one_entry(served: Workload, name: str) -> None:
    answer = root().post("/console/new-workload/", described(served, name=name))
    assert answer.status_code == 422
    assert "already exists; choose another name" in answer.content.decode()
    assert refusals() == ["workload.register"]


def test_a_taken_environment_name_is_one_entry(served: Workload) -> None:
    form = {"name": "production", "poll_interval_ms": 10_000}
    assert root().post("/console/new-environment/", form).status_code == 422
    assert refusals() == ["environment.register"]


def test_a_taken_model_name_is_one_entry(served: Workload) -> None:
    client = root()
    assert client.post("/console/new-model/", MODEL).status_code == 302
    assert client.post("/console/new-model/", MODEL).status_code == 422
    assert refusals() == ["model.add"]


def test_unpinning_without_a_pin_is_one_entry(served: Workload) -> None:
    answer = root().post("/console/workloads/summaries/production/unpin/", {"reason": "x"})
    assert answer.status_code == 422
    assert "is not pinned in production" in answer.content.decode()
    assert refusals() == ["assignment.unpin"]


def test_a_workload_cannot_be_given_to_another_team(served: Workload) -> None:
    others = Team.objects.create(name="others")
    client = logged_in("ed", "editor")
    served.owner.members.add(User.objects.get(username="ed"))
    form = described(served, owner=others.pk, expected=served.version)
    assert client.post("/console/workloads/summaries/edit/", form).status_code == 422
    assert refusals() == ["request.post"]
    served.refresh_from_db()
    assert served.owner != others


def test_a_version_based_on_an_outdated_one_is_refused(served: Workload) -> None:
    text = as_yaml(served.versions.get().document | {"rules": []})
    answer = root().post("/console/workloads/summaries/versions/new/", {"text": text, "newest": "0"})
    assert answer.status_code == 409
    assert refusals() == ["request.post"]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("new-workload/", {"name": "no slug"}),
        ("new-environment/", {"name": "", "poll_interval_ms": "soon"}),
        ("new-model/", MODEL | {"context_window": "-1"}),
        ("workloads/summaries/production/unpin/", {"reason": ""}),
        ("workloads/summaries/production/pin/", {"reason": "x", "model_alias": "no such"}),
        ("environments/production/freeze/", {"frozen_until": "2001-01-01T00:00", "freeze_reason": "x"}),
    ],
)
def test_invalid_input_leaves_no_entry(served: Workload, path: str, form: dict[str, str]) -> None:
    assert root().post(f"/console/{path}", form).status_code == 422
    assert refusals() == []


def test_a_missing_object_is_a_404_and_leaves_no_entry(served: Workload) -> None:
    """As in the API, where a URL of a missing object requests nothing."""
    answer = root().post("/console/workloads/summaries/guardrails/failure/reset/", {"reason": "x"})
    assert answer.status_code == 404
    assert refusals() == []
