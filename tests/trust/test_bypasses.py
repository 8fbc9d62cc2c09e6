"""Variants of the recorded bypasses T1 to T15: through the console, in another order, or with another credential."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions as access
from controlplane.access.models import Key, Membership
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from policies_app.models import Assignment, Workload
from rollout_app import actions as rollouts
from tests.support import builders
from tests.support.callers import Caller
from tests.support.people import logged_in, proposed

pytestmark = pytest.mark.django_db
WHY = {"reason": "x"}


@pytest.fixture
def served() -> Workload:
    workload = builders.workload("summaries")
    builders.served(builders.environment("production", four_eyes=True), workload)
    builders.version(workload, actor=Actor.of_user(User.objects.create_user("maria")))
    return workload


def person(name: str, *roles: str) -> User:
    user, _ = User.objects.get_or_create(username=name)
    for role in roles:
        Membership.objects.get_or_create(user=user, environment="", role=role)
    return user


def test_t1_an_admin_cannot_rotate_an_approvers_key(served: Workload) -> None:
    """In the console instead of the API, and with a key that belongs to nobody."""
    eva = person("eva", "approver")
    key, _ = access.issue_key("admin", "", "eva's", actor=SYSTEM, user=eva, scopes=["approver"])
    form = {"overlap_hours": "24", **WHY}
    answer = logged_in("root", "admin").post(f"/console/keys/{key.key_id}/rotate/", form)
    assert answer.status_code in (403, 404, 422)
    assert Caller("admin")("POST", f"keys/{key.key_id}/rotate", WHY).status_code in (403, 404)
    assert not Key.objects.filter(rotated_from=key).exists()


def test_t2_stopping_and_serving_again_does_not_avoid_the_approval(served: Workload) -> None:
    call, client = Caller("operator"), logged_in("olaf", "operator")
    place = "workloads/summaries/production"
    assert client.post(f"/console/{place}/stop/", WHY).status_code == 302
    newest = served.versions.latest("number")
    asked = client.post(f"/console/{place}/serve/", WHY | {"version": newest.pk})
    assert asked.status_code == 302  # requested, not served
    body = WHY | {"version": newest.number}
    assert call("POST", "environments/production/assignments/summaries/serve", body).status_code == 409
    assert not Assignment.objects.exists()


def test_t3_changed_criteria_void_the_approval(served: Workload) -> None:
    """An owner changes the outcome lag and the success signal, not the guardrails, after the approval."""
    maria = person("maria", "editor", "operator")
    served.owner.members.add(maria)
    eva = Actor.of_user(person("eva", "approver"))
    rollout = proposed(served, served.assignments.get().environment)
    rollout = rollouts.approve_rollout(
        rollout, actor=eva, reason="yes", expected_binding=rollouts.binding(rollout)
    )
    call = Caller("editor", "operator", user=maria)
    for change in ({"outcome_lag_s": 1}, {"success_signal": "satisfaction"}):
        call("PATCH", "workloads/summaries", change | WHY, **{"If-Match": "*"})
    started = call("POST", f"rollouts/{rollout.pk}/start", WHY, **{"If-Match": "*"})
    assert started.status_code == 409, started.content
    rollout.refresh_from_db()
    assert rollout.started_at is None


def test_t5_an_admin_alone_cannot_switch_four_eyes_off(served: Workload) -> None:
    place = served.assignments.get().environment
    client = logged_in("root", "admin")
    form = {"description": "", "poll_interval_ms": 10_000, "expected": place.version, **WHY}
    client.post("/console/environments/production/edit/", form)  # a checkbox that is not ticked is not sent
    call = Caller("admin", user=User.objects.get(username="root"))
    call("PATCH", "environments/production", {"four_eyes": False} | WHY, **{"If-Match": "*"})
    place.refresh_from_db()
    assert place.four_eyes


def test_t7_a_key_limited_to_a_workload_changes_nothing_else(served: Workload) -> None:
    """Neither other workloads nor what all share: plans, teams, environments, models."""
    call = Caller("admin", "operator", workloads=["another"])
    plan: dict[str, Any] = {"name": "p", "stages": [{"mode": "full"}], **WHY}
    asked = [
        call("POST", "plans", plan),
        call("POST", "teams", {"name": "t", "members": [], **WHY}),
        call("POST", "environments", {"name": "more", **WHY}),
        call("POST", "models", {"name": "a/b", "context_window": 9, **WHY}),
        call("POST", "environments/production/assignments/summaries/stop", WHY),
        call("PUT", "workloads/summaries/guardrails/failure", {"enabled": False, **WHY}),
    ]
    assert {answer.status_code for answer in asked} <= {403, 404}
    assert not Entry.objects.filter(actor_id=call.key.key_id, outcome="done").exists()


def test_t9_the_console_accepts_no_approval_without_the_right_binding(served: Workload) -> None:
    rollout = proposed(served, served.assignments.get().environment)
    client = logged_in("eva", "approver")
    for bound in ("", "0" * 64):
        form = WHY | {"seen": rollout.version, "expected_binding": bound}
        assert client.post(f"/console/rollouts/{rollout.pk}/approve/", form).status_code == 422
    assert not rollout.approvals.exists()


def test_t13_a_viewers_attempts_in_the_console_are_entries(served: Workload) -> None:
    client, place = logged_in("tom", "viewer"), "/console/workloads/summaries/production"
    for path, form in (("stop/", WHY), ("serve/", WHY | {"break_glass": "on"}), ("unpin/", WHY)):
        assert client.post(f"{place}/{path}", form).status_code == 403
    assert Entry.objects.filter(outcome="refused", actor_label="tom").count() == 3


def test_t15_an_editor_of_another_team_moves_no_rollout_in_the_console(served: Workload) -> None:
    client = logged_in("ed", "editor")
    rollout = proposed(served, served.assignments.get().environment)
    for action in ("cancel", "amend"):
        form = WHY | {"seen": rollout.version}
        assert client.post(f"/console/rollouts/{rollout.pk}/{action}/", form).status_code in (403, 422)
    rollout.refresh_from_db()
    assert rollout.state == "awaiting_approval"


@pytest.mark.parametrize(
    "body", [b'{"events":[{"at":null}', b'{"events":', b"[", b"\xff", b'{"events":[{}]}']
)
def test_t14_a_truncated_body_or_forged_cursor_gets_a_4xx(served: Workload, body: bytes) -> None:
    call = Caller("admin")
    for path in ("rollouts", "keys", "workloads", "notifications/receivers", "invitations"):
        assert 400 <= call("POST", path, body).status_code < 500
    for cursor in ("cD0lMDA=", "cD1hYmM=", "%00", "=", "a" * 5_000):
        for path in ("rollouts", "audit/entries", "keys", "invitations"):
            assert call("GET", f"{path}?cursor={cursor}").status_code < 500
    assert Client().get("/console/audit/export.jsonl?since=%00").status_code < 500
