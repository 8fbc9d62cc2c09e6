"""Refused attempts become entries, once each; a flood becomes one. Every write accepts a reason; weakening changes
require it."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User

from controlplane.access import actions as access
from controlplane.access.models import Membership
from controlplane.audit import log, refusals, tasks, verification
from controlplane.audit.models import Entry, RefusalWindow
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import InvalidInput, RoleMissing
from policies_app import actions
from policies_app.models import Workload
from rollout_app import actions as rollouts
from rollout_app.models import Plan
from tests.support import builders
from tests.support.callers import Caller
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_directory(settings: Any, tmp_path: Any) -> None:
    settings.VAR_DIR = tmp_path


@pytest.fixture
def served() -> Workload:
    workload = builders.workload("summaries")
    builders.served(builders.environment("production", four_eyes=True), workload)
    return workload


def refused() -> Any:
    return Entry.objects.filter(outcome="refused").order_by("seq")


# --- refusals ----------------------------------------------------------------------------------------


def test_a_refusal_by_a_view_is_an_entry(served: Workload) -> None:
    call = Caller("viewer")
    assert (
        call(
            "POST", "environments/production/assignments/summaries/pin", {"model": "large", "reason": "x"}
        ).status_code
        == 403
    )
    entry = refused().get()
    assert (entry.action, entry.actor_id, entry.environment) == (
        "request.post",
        call.key.key_id,
        "production",
    )
    assert entry.target_id == "/api/v1/environments/production/assignments/summaries/pin"
    assert b'"code":"role_missing"' in bytes(entry.body)


def test_a_refusal_by_a_page_is_an_entry(served: Workload) -> None:
    logged_in("tom", "viewer").post("/console/workloads/summaries/production/pin/", {"reason": "x"})
    entry = refused().get()
    assert (entry.actor_label, entry.action, entry.environment) == ("tom", "request.post", "production")


def test_a_refusal_by_an_action_is_one_entry_also_with_an_idempotency_key(served: Workload) -> None:
    call = Caller("admin")
    for headers in ({}, {"Idempotency-Key": "k"}):
        version = {"version": 1, "reason": "again"}
        answer = call("POST", "environments/production/assignments/summaries/serve", version, **headers)
        assert answer.status_code == 409
    assert [entry.action for entry in refused()] == ["assignment.serve_first"] * 2


def test_reads_malformed_requests_and_anonymous_requests_leave_no_entry(served: Workload) -> None:
    call = Caller("viewer", environment="staging")
    assert call("GET", "environments/production").status_code == 404
    assert call("POST", "teams", b"{").status_code in (400, 403)
    Caller("admin")("POST", "teams", {"name": "no slug"})
    call.client.post("/api/v1/teams", {}, content_type="application/json")
    assert refused().count() <= 1


def test_a_flood_of_one_actor_folds_into_one_entry_with_a_count(served: Workload, settings: Any) -> None:
    settings.CLOCK = "process"
    call, path = Caller("viewer"), "environments/production/assignments/summaries"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
        for number in range(33):
            call("POST", f"{path}/{('pin', 'stop')[number % 2]}", {"model": "large", "reason": "x"})
        assert refused().count() == refusals.EACH
        tasks.checkpoint()
        assert refused().count() == refusals.EACH  # the minute is not over
        now.shift(timedelta(seconds=61))
        tasks.checkpoint()
        last = refused().last()
        assert last is not None
        assert (last.action, last.actor_id) == ("refusals.folded", call.key.key_id)
        assert b'"count":13' in bytes(last.body)
        assert not RefusalWindow.objects.exists()
        call("POST", f"{path}/pin", {"model": "large", "reason": "x"})
        assert refused().count() == refusals.EACH + 2
    assert [finding for finding in verification.verify().findings if finding.seq] == []


def test_the_next_attempt_folds_the_counted_ones(settings: Any) -> None:
    settings.CLOCK = "process"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
        for _ in range(refusals.EACH + 5):
            with pytest.raises(RoleMissing), log.attempt(actor=SYSTEM, action="a.b", target=("x", "1")):
                raise RoleMissing("no")
        now.shift(timedelta(minutes=2))
        with pytest.raises(RoleMissing), log.attempt(actor=SYSTEM, action="a.b", target=("x", "1")):
            raise RoleMissing("no")
    assert [entry.action for entry in refused()][-2:] == ["refusals.folded", "a.b"]


def test_a_log_that_cannot_be_written_does_not_turn_a_refusal_into_a_500(
    served: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("disk full")

    monkeypatch.setattr(log, "record_refusal", broken)
    answer = Caller("viewer")(
        "POST", "environments/production/assignments/summaries/pin", {"model": "x", "reason": "x"}
    )
    assert answer.status_code == 403


# --- reasons -----------------------------------------------------------------------------------------


def kept(action: str) -> str:
    return Entry.objects.get(action=action, outcome="done").reason


def test_every_write_of_the_api_accepts_a_reason(served: Workload) -> None:
    call, why = Caller("admin", user=User.objects.create_superuser("root")), {"reason": "because"}
    any_version = {"If-Match": "*"}
    model = {"name": "a/b", "input_nusd_per_mtok": 1, "output_nusd_per_mtok": 1, "context_window": 9}
    stages = {"stages": [{"mode": "full"}]}
    User.objects.create_user("ann")
    key = call("POST", "keys", {"kind": "router", "environment": "production", "label": "r"} | why)
    role = call("POST", "memberships", {"user": "ann", "role": "viewer", "environment": ""} | why)
    answers = [
        key,
        role,
        call("POST", f"keys/{key.json()['key_id']}/rotate", why),
        call("POST", "environments", {"name": "staging"} | why),
        call("PATCH", "environments/staging", {"description": "d"} | why, **any_version),
        call("POST", "teams", {"name": "t", "members": []} | why),
        call("PUT", "teams/t", {"members": ["ann"]} | why),
        call(
            "POST", "workloads", {"name": "w", "task_type": "chat", "quality_bar": "0.9", "owner": "t"} | why
        ),
        call("PATCH", "workloads/w", {"description": "d"} | why, **any_version),
        call("POST", "models", model | why),
        call("PATCH", "models/a/b", {"context_window": 10} | why, **any_version),
        call("POST", "plans", {"name": "p"} | stages | why),
        call("PATCH", "plans/p", {"description": "d"} | why, **any_version),
        call("DELETE", "plans/p?reason=because", **any_version),
        call("PUT", "workloads/w/guardrails/failure", {"margin": 0.5} | why),
        call("DELETE", "workloads/w/guardrails/failure?reason=because", **any_version),
        call("DELETE", f"memberships/{role.json()['id']}?reason=because"),
        call("POST", f"keys/{key.json()['key_id']}/revoke", why),
    ]
    assert [answer.status_code for answer in answers if answer.status_code >= 300] == []
    mine = Entry.objects.filter(actor_kind="key", outcome="done")
    assert mine.count() == len(answers)  # each leaves exactly one entry
    assert set(mine.values_list("reason", flat=True)) == {"because"}
    assert all("reason" not in answer.json() for answer in answers if answer.content)


@pytest.fixture
def ann(served: Workload) -> Actor:
    user = User.objects.create_superuser("ann")
    served.owner.members.add(user)
    return Actor.of_user(user)


WEAKER: list[dict[str, Any]] = [{"enabled": False}, {"margin": 0.5}, {"weight": 0.001}]


@pytest.mark.parametrize("change", WEAKER, ids=str)
def test_a_weaker_guardrail_needs_a_reason(served: Workload, ann: Actor, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="give a reason"):
        rollouts.set_guardrail(served, "failure", actor=ann, reason=" ", **change)
    rollouts.set_guardrail(served, "failure", actor=ann, reason="noisy", **change)
    with pytest.raises(InvalidInput):
        rollouts.remove_guardrail(served, "failure", actor=ann)
    assert kept("guardrail.set") == "noisy"


def test_a_stricter_guardrail_needs_no_reason(served: Workload, ann: Actor) -> None:
    rollouts.set_guardrail(served, "failure", actor=ann, margin=0.01, weight=0.5)


def test_ending_a_freeze_early_needs_a_reason(served: Workload, ann: Actor) -> None:
    place = served.assignments.get().environment
    until = clock.now() + timedelta(days=3)
    actions.edit_environment(place, actor=ann, frozen_until=until, freeze_reason="year end")
    for sooner in (None, until - timedelta(days=1)):
        with pytest.raises(InvalidInput):
            actions.edit_environment(place, actor=ann, frozen_until=sooner)
    actions.edit_environment(place, actor=ann, frozen_until=until + timedelta(days=1))
    actions.edit_environment(place, actor=ann, frozen_until=None, reason="a hot fix")


def test_changes_to_judging_and_roles_need_a_reason(served: Workload, ann: Actor) -> None:
    with pytest.raises(InvalidInput):
        actions.edit_workload(served, actor=ann, quality_bar="0.5")
    with pytest.raises(InvalidInput):
        access.grant_role(User.objects.get(), "admin", "", actor=ann)
    assert not Membership.objects.exists()
    assert Plan.objects.exists()  # created by the migrations
