"""Variants of two bypasses: a role in staging that changed production, and an approval by a contributor.

Through other fields, URLs and credentials, and in another order.
"""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.access import actions as access
from controlplane.access import change_requests
from controlplane.access.models import ChangeRequest, Membership
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import SelfApproval
from controlplane.notifications import actions as notifications
from controlplane.notifications.models import BreakGlass
from policies_app import actions as policies
from policies_app.actions.workloads import DESCRIBES
from policies_app.four_eyes import actions as four_eyes
from policies_app.models import Assignment, Environment, Model, Workload
from policies_app.serializers import WorkloadEditSerializer
from rollout_app import actions as rollouts
from rollout_app.models import GuardrailOverride, Plan, Rollout
from tests.support import builders, places
from tests.support.callers import Caller
from tests.support.people import logged_in, proposed
from tests.support.places import ANNA, BEN, CARL

pytestmark = pytest.mark.django_db
WHY = {"reason": "x"}


@pytest.fixture
def workload() -> Workload:
    """Served in staging and in production. Sam edits in staging only, and is on the team that owns it."""
    workload = builders.served_in_two_environments()
    for role in ("editor", "operator", "approver", "admin"):
        Membership.objects.create(user=sam(), environment="staging", role=role)
    workload.owner.members.add(sam())
    return workload


def sam() -> User:
    return User.objects.get_or_create(username="sam")[0]


def everything() -> list[Any]:
    """Return everything that is served in production or decides how rollouts there are judged."""
    kept = [Workload, Assignment, Model, Plan, GuardrailOverride, Rollout, ChangeRequest]
    rows = [list(model._default_manager.order_by("pk").values()) for model in kept]
    return [*rows, list(Environment.objects.filter(name="production").values())]


OTHER: dict[str, Any] = {
    "task_type": "chat", "difficulty": "hard", "quality_bar": "0.1", "latency_tolerance_ms": 1, "retryable": False,
    "escalatable": False, "batchable": True, "owner": "others", "unit": "user", "success_signal": "downstream",
    "outcome_lag_s": 9, "mirror_budget_usd": "1.00",
}  # fmt: skip


def test_an_editor_of_staging_changes_only_the_description_of_a_workload(workload: Workload) -> None:
    """Tests every field that the API can write, so a new one must be refused, too."""
    builders.team("others").members.add(sam())
    fields = WorkloadEditSerializer().fields
    writable = {name for name, field in fields.items() if not field.read_only} - DESCRIBES - {"reason"}
    assert set(OTHER) == writable
    callers = [
        Caller("admin", user=sam()),
        Caller("admin", environment="staging", user=sam()),
        Caller("editor", environment="staging", workloads=["summaries"]),
    ]
    before = everything()
    for call in callers:
        for name in writable:
            answer = call("PATCH", "workloads/summaries", {name: OTHER[name]} | WHY, **{"If-Match": "*"})
            assert answer.status_code == 403, (name, answer.content)
    assert everything() == before
    assert Entry.objects.filter(outcome="refused").count() >= 20  # further ones are only counted


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("workloads/summaries/edit/", {**OTHER, "difficulty": "mixed", "name": "summaries"}),
        ("workloads/summaries/guardrails/failure/", {"margin": "9", "weight": "0.1"}),
        ("workloads/summaries/guardrails/failure/reset/", {}),
        ("models/openai/gpt-4o-mini/edit/", {"context_window": "9"}),
        ("plans/immediate/edit/", {"stages": "[]"}),
        ("plans/immediate/remove/", {}),
        ("teams/{team}/", {"members": []}),
        ("notifications/add/", {"name": "mine", "kind": "email", "address": "sam@example.org"}),
        ("environments/production/edit/", {"poll_interval_ms": "99999"}),
        ("environments/production/freeze/", {"frozen_until": "2099-01-01T00:00", "freeze_reason": "x"}),
        ("environments/production/thaw/", {}),
        ("workloads/summaries/production/pin/", {"model_alias": "small"}),
        ("workloads/summaries/production/stop/", {}),
        ("people/{sam}/", {"role": "editor", "environment": "production"}),
        ("keys/new/", {"kind": "router", "environment": "production", "label": "mine"}),
    ],
)
def test_an_editor_of_staging_changes_no_production_in_the_console(
    workload: Workload, path: str, form: dict[str, Any]
) -> None:
    rollouts.set_guardrail(workload, "failure", actor=SYSTEM, margin=0.03, reason="r")
    before, client = everything(), logged_in("sam")
    owner = workload.owner.name
    answer = client.post(
        f"/console/{path.format(team=owner, sam=sam().pk)}",
        WHY | form | {"expected": workload.version, "owner": workload.owner_id},
    )
    refused = [bytes(body) for body in Entry.objects.filter(outcome="refused").values_list("body", flat=True)]
    by_its_form = answer.status_code == 422 and any(b'"code":"role_missing"' in body for body in refused)
    assert by_its_form or answer.status_code in (403, 404), answer.status_code
    assert everything() == before
    assert set(Membership.objects.filter(user=sam()).values_list("environment", flat=True)) == {"staging"}
    assert workload.owner.members.filter(pk=sam().pk).exists()
    assert not Entry.objects.filter(outcome="done", actor_label="sam").exists()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "models/openai/gpt-4o-mini", {"input_nusd_per_mtok": 1}),
        ("PATCH", "plans/immediate", {"stages": [{"mode": "full"}]}),
        ("PUT", "teams/{team}", {"members": []}),
        ("PATCH", "environments/production", {"poll_interval_ms": 60_000}),
        ("POST", "environments/production/assignments/summaries/pin", {"model": "small"}),
        ("POST", "environments/production/assignments/summaries/stop", {}),
        ("PATCH", "notifications/receivers/{receiver}", {"enabled": False}),
        ("POST", "notifications/receivers/{receiver}/rotate", {}),
        ("POST", "memberships", {"user": "sam", "role": "editor", "environment": "production"}),
        (
            "POST",
            "invitations",
            {"invited": "Me", "roles": [{"environment": "production", "role": "editor"}]},
        ),
        ("POST", "keys", {"kind": "admin", "environment": "", "label": "m", "scopes": ["editor"]}),
        ("PATCH", "rollouts/{rollout}", {}),
        ("POST", "rollouts/{rollout}/cancel", {}),
        ("POST", "rollouts/{rollout}/break-glass", {}),
        ("POST", "rollouts/{rollout}/reject", {}),
    ],
)
def test_an_editor_of_staging_changes_no_production_through_the_api(
    workload: Workload, method: str, path: str, body: dict[str, Any]
) -> None:
    receiver, _ = notifications.add_receiver("ops", "webhook", "https://hooks.example.org/", actor=SYSTEM)
    builders.version(workload, actor=Actor.of_user(User.objects.create_user("maria")))
    rollout = proposed(workload, Environment.objects.get(name="production"))
    before, call = everything(), Caller("admin", user=sam())
    named = path.format(team=workload.owner.name, receiver=receiver.pk, rollout=rollout.pk)
    answer = call(method, named, WHY | body, **{"If-Match": "*"})
    assert answer.status_code in (403, 404), answer.content
    assert everything() == before
    receiver.refresh_from_db()
    assert receiver.enabled
    assert not Entry.objects.filter(outcome="done", actor_id=call.key.key_id).exists()


# --- contributors cannot approve ----------------------------------------------------------------------

Prepare = Callable[[], Rollout]


def _amended_twice() -> Rollout:
    rollout = rollouts.amend_rollout(places.proposed().pk, actor=BEN, reason="faster")
    return rollouts.amend_rollout(rollout.pk, actor=CARL, reason="as it was")


def _amended_by_key() -> Rollout:
    key = Actor("key", "k-ben", "ben's script", BEN.user_id)
    rollout = rollouts.amend_rollout(places.proposed().pk, actor=key, reason="faster")
    return rollouts.amend_rollout(rollout.pk, actor=ANNA, reason="as it was")


def _approved_then_amended() -> Rollout:
    rollout = places.approve(places.proposed())
    rollout = rollouts.withdraw_approval(rollout, actor=BEN, reason="not yet")
    rollout = rollouts.amend_rollout(rollout.pk, actor=BEN, reason="faster")
    return rollouts.amend_rollout(rollout.pk, actor=ANNA, reason="as it was")


def _drafted() -> Rollout:
    draft = places.proposed(actor=BEN, draft=True)
    rollout = rollouts.submit_rollout(draft.pk, actor=ANNA, reason="ready")
    return rollouts.amend_rollout(rollout.pk, actor=CARL, reason="said better")


@pytest.mark.parametrize("order", [_amended_twice, _amended_by_key, _approved_then_amended, _drafted])
def test_a_contributor_cannot_approve_by_any_means(order: Prepare) -> None:
    rollout = order()
    ben = User.objects.get(pk=BEN.id)
    for out in (BEN, Actor("key", "k", "a key of his", BEN.user_id)):
        with pytest.raises(SelfApproval):
            places.approve(rollout, actor=out)
    form = WHY | {"seen": rollout.version, "expected_binding": rollouts.binding(rollout)}
    client = logged_in(ben.username, "approver")
    assert client.post(f"/console/rollouts/{rollout.pk}/approve/", form).status_code in (403, 422)
    body = WHY | {"binding": rollouts.binding(rollout)}
    call = Caller("viewer", "approver", user=ben)
    assert call("POST", f"rollouts/{rollout.pk}/approve", body, **{"If-Match": "*"}).status_code == 403
    rollout.refresh_from_db()
    assert (rollout.state, rollout.approvals.filter(withdrawn_at=None).count()) == ("awaiting_approval", 0)


def test_the_author_of_a_version_cannot_approve_a_request_for_it() -> None:
    """Ben is the author; Anna requests it and withdraws, Carl requests it again. Ben stays excluded, also by key."""
    places.people()
    production = builders.environment("production", four_eyes=True)
    version = builders.version(builders.workload("summaries"), actor=BEN)
    first = four_eyes.request_serving(production, version, actor=ANNA, reason="r")
    change_requests.withdraw(first, actor=ANNA, reason="not yet")
    Membership.objects.create(user_id=int(CARL.id), role="operator")
    asked = four_eyes.request_serving(production, version, actor=CARL, reason="r")
    bound = change_requests.binding(asked)
    call = Caller("viewer", "approver", user=User.objects.get(pk=BEN.id))
    assert call("POST", f"change-requests/{asked.pk}/approve", WHY | {"binding": bound}).status_code == 403
    for out in (BEN, CARL):
        with pytest.raises(SelfApproval):
            four_eyes.approve_change(asked, actor=out, reason="yes", expected_binding=bound)
    assert not Assignment.objects.exists()
    four_eyes.approve_change(asked, actor=ANNA, reason="yes", expected_binding=bound)
    assert Assignment.objects.get().baseline == version


def test_nobody_reviews_their_own_use_of_break_glass_even_with_a_key() -> None:
    places.people()
    production = builders.environment("production", four_eyes=True)
    version = builders.version(builders.workload("summaries"), actor=ANNA)
    ben = User.objects.get(pk=BEN.id)
    key, _ = access.issue_key("admin", "", "his", actor=SYSTEM, user=ben, scopes=["operator", "approver"])
    acting = Actor("key", key.key_id, "his", BEN.user_id)
    policies.serve_first(production, version, actor=acting, reason="now", break_glass=True)
    opened = BreakGlass.objects.get()
    call = Caller("viewer", "approver", user=ben)
    assert call("POST", f"break-glass/{opened.pk}/review", WHY).status_code == 403
    form = logged_in(ben.username, "approver").post(f"/console/break-glass/{opened.pk}/", WHY)
    assert form.status_code in (403, 422)
    opened.refresh_from_db()
    assert opened.reviewed_at is None
