"""What is served: first versions, moves, pins, and the revisions they draw."""

import json

import pytest
from django.db import connection, transaction

from controlplane.access.change_requests import binding
from controlplane.access.models import ChangeRequest, Membership
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import AlreadyExists, Conflict, InvalidInput, NotServed, RolloutActive
from controlplane.core.ids import uuid7
from policies_app import actions
from policies_app.four_eyes.actions import approve_change, request_serving
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Revision, Workload
from tests.support import builders, places

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment() -> Environment:
    return builders.environment()


@pytest.fixture
def workload() -> Workload:
    return builders.workload()


@pytest.fixture
def first(workload: Workload) -> PolicyVersion:
    return builders.version(workload)


@pytest.fixture
def served(environment: Environment, first: PolicyVersion) -> Assignment:
    return actions.serve_first(environment, first, actor=SYSTEM, reason="to begin with")


def entry_of(assignment: Assignment) -> dict[str, object]:
    assignment.refresh_from_db()
    parsed = json.loads(assignment.fragment)
    assert isinstance(parsed, dict)
    return parsed


def move(assignment: Assignment, candidate: PolicyVersion) -> int:
    with transaction.atomic():
        return actions.set_assignment(
            assignment.environment_id,
            assignment.workload_id,
            baseline=assignment.baseline,
            candidate=candidate,
            rollout=uuid7(),
            stage=1,
            mode="percentage",
            share_pcm=5_000,
            salt="s",
            cause="rollout.advance",
        )


def test_it_serves_a_first_version_as_revision_one(served: Assignment, first: PolicyVersion) -> None:
    entry = entry_of(served)
    assert entry["revision"] == served.revision == 1
    assert entry["baseline"] == {"version": 1, "digest": first.digest, "policy": first.document}
    assert entry["candidate"] is entry["rollout"] is entry["pin"] is None


def test_it_serves_only_one_first_version(served: Assignment, environment: Environment) -> None:
    second = builders.version(served.workload)
    with pytest.raises(AlreadyExists, match="propose a rollout"):
        actions.serve_first(environment, second, actor=SYSTEM, reason="again")
    environment.refresh_from_db()
    assert environment.revision == 1  # the refused attempt drew none


def test_it_draws_revisions_without_gaps_across_workloads(environment: Environment) -> None:
    for _ in range(3):
        version = builders.version(builders.workload())
        actions.serve_first(environment, version, actor=SYSTEM, reason="to begin with")
    assert list(Revision.objects.values_list("number", flat=True)) == [3, 2, 1]


@pytest.mark.parametrize("break_glass", [False, True])
def test_it_does_not_serve_a_model_that_was_disabled_since(
    environment: Environment, first: PolicyVersion, break_glass: bool
) -> None:
    """Break-glass replaces the second person, and nothing else."""
    environment.four_eyes = break_glass
    environment.save()
    model = Model.objects.get(name=first.document["models"]["small"]["model"])
    actions.edit_model(model, actor=SYSTEM, enabled=False)
    with pytest.raises(
        Conflict, match=f"^Version 1 uses {model.name}, which is disabled in the catalogue: enable"
    ):
        actions.serve_first(environment, first, actor=SYSTEM, reason="on", break_glass=break_glass)
    assert not Assignment.objects.exists()
    actions.edit_model(model, actor=SYSTEM, enabled=True)
    actions.serve_first(environment, first, actor=SYSTEM, reason="on", break_glass=break_glass)


def test_it_does_not_request_to_serve_a_disabled_model(
    environment: Environment, first: PolicyVersion
) -> None:
    Model.objects.update(enabled=False)
    with pytest.raises(Conflict, match=r"^Version 1 uses \S+, \S+, which are disabled"):
        request_serving(environment, first, actor=SYSTEM, reason="on")
    assert not ChangeRequest.objects.exists()


def test_an_approval_does_not_serve_a_model_that_was_disabled_since(
    environment: Environment, first: PolicyVersion
) -> None:
    places.people()
    Membership.objects.create(user_id=int(places.ANNA.id), role="operator")
    version = builders.version(first.workload, actor=places.ANNA)
    request = request_serving(environment, version, actor=places.ANNA, reason="on")
    Model.objects.update(enabled=False)
    with pytest.raises(Conflict, match="disabled"):
        approve_change(request, actor=places.BEN, reason="yes", expected_binding=binding(request))
    request.refresh_from_db()
    assert (request.state, request.approvals) == ("waiting", [])


def test_it_moves_with_everything_that_routers_need(served: Assignment) -> None:
    candidate = builders.version(served.workload)
    revision = move(served, candidate)
    entry = entry_of(served)
    assert entry["revision"] == revision == 2
    assert entry["candidate"] == {"version": 2, "digest": candidate.digest, "policy": candidate.document}
    assert entry["rollout"] == {
        "id": str(served.rollout), "stage": 1, "mode": "percentage", "share_pcm": 5_000, "salt": "s",
        "mirror_pcm": 0, "cost_cap_nusd": None,
    }  # fmt: skip


def test_it_does_not_move_a_workload_that_is_not_served(
    environment: Environment, first: PolicyVersion
) -> None:
    with pytest.raises(NotServed), transaction.atomic():
        actions.set_assignment(environment.pk, first.workload_id, baseline=first, cause="rollout.start")
    environment.refresh_from_db()
    assert environment.revision == 0


def test_it_pins_to_a_model_of_the_served_policy_and_unpins(served: Assignment) -> None:
    actions.pin(served, "large", actor=SYSTEM, reason="the small one is down")
    assert entry_of(served)["pin"] == {"model": "large", "reason": "the small one is down"}
    actions.unpin(served, actor=SYSTEM, reason="it is back")
    assert entry_of(served)["pin"] is None
    newest = Entry.objects.order_by("-seq").values_list("action", flat=True)[:2]
    assert list(newest) == ["assignment.unpin", "assignment.pin"]


def test_it_refuses_a_pin_that_routers_could_not_follow(served: Assignment) -> None:
    with pytest.raises(InvalidInput, match="large, small"):
        actions.pin(served, "huge", actor=SYSTEM, reason="why not")


def test_it_keeps_the_pin_when_the_assignment_moves(served: Assignment) -> None:
    actions.pin(served, "large", actor=SYSTEM, reason="the small one is down")
    move(served, builders.version(served.workload))
    assert entry_of(served)["pin"] == {"model": "large", "reason": "the small one is down"}


def test_it_does_not_stop_serving_during_a_rollout(served: Assignment) -> None:
    move(served, builders.version(served.workload))
    with pytest.raises(RolloutActive, match="roll it back first"):
        actions.stop_serving(served, actor=SYSTEM, reason="enough")
    assert Assignment.objects.filter(pk=served.pk).exists()


def test_it_stops_serving_with_a_revision_that_records_it(served: Assignment) -> None:
    actions.stop_serving(served, actor=SYSTEM, reason="retired")
    latest = Revision.objects.first()
    assert latest is not None
    assert (latest.number, latest.removed) == (2, True)
    assert not Assignment.objects.filter(pk=served.pk).exists()


def test_it_publishes_a_new_unit_but_not_during_a_rollout(served: Assignment) -> None:
    actions.edit_workload(served.workload, actor=SYSTEM, unit="conversation")
    assert entry_of(served)["unit"] == "conversation"
    move(served, builders.version(served.workload))
    with pytest.raises(RolloutActive, match="unit cannot change"):
        actions.edit_workload(served.workload, actor=SYSTEM, unit="user")
    served.workload.refresh_from_db()
    assert served.workload.unit == "conversation"


def test_repeated_settings_of_a_workload_do_not_count_as_changed_during_a_rollout(served: Assignment) -> None:
    move(served, builders.version(served.workload))
    bar = Workload.objects.get().quality_bar
    actions.edit_workload(served.workload, actor=SYSTEM, quality_bar=bar, unit="request", description="new")
    assert Workload.objects.get().description == "new"
    assert entry_of(served)["revision"] == 2


def test_the_database_refuses_a_candidate_without_a_rollout(served: Assignment) -> None:
    from django.db import IntegrityError

    candidate = builders.version(served.workload)
    with pytest.raises(IntegrityError), transaction.atomic():
        Assignment.objects.filter(pk=served.pk).update(candidate=candidate)
    assert connection.is_usable()
