"""Changes outside rollouts that need a second person: a first version, serving again after a stop, four eyes off."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions as access
from controlplane.access import change_requests
from controlplane.access.models import ChangeRequest
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import ApprovalMissing, ApprovalStale, Conflict, Forbidden, SelfApproval
from policies_app import actions
from policies_app.four_eyes.actions import approve_change, request_four_eyes_off, request_serving
from policies_app.models import Assignment, Environment, PolicyVersion
from tests.support import builders
from tests.support.callers import Caller
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
NOBODYS_KEY = Actor("key", "k-cron", "cron")


def person(name: str, *roles: str) -> Actor:
    user = User.objects.create_user(name)
    for role in roles:
        access.grant_role(user, role, "production", actor=SYSTEM)
    return Actor.of_user(user)


@pytest.fixture
def anna() -> Actor:
    return person("anna", "editor", "operator", "admin")


@pytest.fixture
def ben() -> Actor:
    return person("ben", "approver")


@pytest.fixture
def production() -> Environment:
    return builders.environment("production", four_eyes=True)


@pytest.fixture
def version(anna: Actor) -> PolicyVersion:
    return builders.version(builders.workload("summaries"), actor=anna)


def approve(request: ChangeRequest, actor: Actor) -> ChangeRequest:
    return approve_change(
        request, actor=actor, reason="fine", expected_binding=change_requests.binding(request)
    )


# --- serving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [SYSTEM, NOBODYS_KEY], ids=str)
def test_one_person_alone_serves_nothing(
    production: Environment, version: PolicyVersion, actor: Actor
) -> None:
    with pytest.raises(ApprovalMissing, match="another person"):
        actions.serve_first(production, version, actor=actor, reason="now")
    assert not Assignment.objects.exists()


def test_it_serves_when_somebody_else_agrees(
    production: Environment, version: PolicyVersion, anna: Actor, ben: Actor
) -> None:
    request = request_serving(production, version, actor=anna, reason="the first")
    assert approve(request, ben).state == "applied"
    assert Assignment.objects.get().baseline == version
    entry = Entry.objects.get(action="assignment.serve_first")
    body = bytes(entry.body).decode()
    assert entry.actor_label == "ben"
    assert '"requested_by":"anna"' in body
    assert f'"binding":"{change_requests.binding(request)}"' in body


def test_stop_and_serve_does_not_bypass_it(
    production: Environment, version: PolicyVersion, anna: Actor, ben: Actor
) -> None:
    approve(request_serving(production, version, actor=anna, reason="the first"), ben)
    never_approved = builders.version(version.workload, actor=anna)
    actions.stop_serving(Assignment.objects.get(), actor=anna, reason="maintenance")
    for again in (version, never_approved):
        with pytest.raises(ApprovalMissing):
            actions.serve_first(production, again, actor=anna, reason="back again")
    assert not Assignment.objects.exists()


def test_break_glass_serves_it_and_is_logged(
    production: Environment, version: PolicyVersion, anna: Actor
) -> None:
    actions.serve_first(production, version, actor=anna, reason="the provider is gone", break_glass=True)
    assert Entry.objects.get(action="assignment.break_glass").reason == "the provider is gone"


def test_break_glass_is_not_recorded_where_one_person_is_enough(version: PolicyVersion, anna: Actor) -> None:
    staging = builders.environment("staging")
    actions.serve_first(staging, version, actor=anna, reason="first", break_glass=True)
    assert not Entry.objects.filter(action__endswith=".break_glass").exists()


# --- who may approve ----------------------------------------------------------------------------------


def test_neither_author_nor_requester_approves(
    production: Environment, version: PolicyVersion, ben: Actor
) -> None:
    carl, dora = person("carl", "approver", "operator"), person("dora", "approver", "editor")
    written = builders.version(version.workload, actor=dora)
    request = request_serving(production, written, actor=carl, reason="first")
    for one in (carl, dora, Actor("key", "k-1", "dora's script", dora.user_id)):
        with pytest.raises(SelfApproval):
            approve(request, one)
    assert approve(request, ben).state == "applied"


def test_a_key_without_a_person_approves_nothing(
    production: Environment, version: PolicyVersion, anna: Actor
) -> None:
    with pytest.raises(Forbidden):
        approve(request_serving(production, version, actor=anna, reason="first"), NOBODYS_KEY)


def test_a_version_without_a_known_author_needs_two_approvals(
    production: Environment, anna: Actor, ben: Actor
) -> None:
    written = builders.version(builders.workload(), actor=NOBODYS_KEY)
    request = request_serving(production, written, actor=anna, reason="first")
    assert approve(request, ben).state == "waiting"
    assert not Assignment.objects.exists()
    with pytest.raises(Conflict, match="another approver"):
        approve(request, ben)
    assert approve(request, person("carl", "approver")).state == "applied"
    assert len(ChangeRequest.objects.get().approvals) == 2


def test_an_approval_is_void_once_the_role_is_withdrawn(
    production: Environment, anna: Actor, ben: Actor
) -> None:
    written = builders.version(builders.workload(), actor=NOBODYS_KEY)
    request = request_serving(production, written, actor=anna, reason="first")
    approve(request, ben)
    User.objects.get(username="ben").memberships.all().delete()
    assert approve(request, person("carl", "approver")).state == "waiting"
    assert approve(request, person("dora", "approver")).state == "applied"


def test_an_approval_names_what_it_saw(
    production: Environment, version: PolicyVersion, ben: Actor, anna: Actor
) -> None:
    request = request_serving(production, version, actor=anna, reason="first")
    with pytest.raises(ApprovalStale):
        approve_change(request, actor=ben, reason="yes", expected_binding="0" * 64)
    with pytest.raises(TypeError):
        approve_change(request, actor=ben, reason="yes")  # type: ignore[call-arg]


def test_a_change_is_requested_once_and_an_ended_request_takes_no_approval(
    production: Environment, version: PolicyVersion, anna: Actor, ben: Actor
) -> None:
    request = request_serving(production, version, actor=anna, reason="first")
    with pytest.raises(Conflict):
        request_serving(production, version, actor=anna, reason="again")
    change_requests.reject(request, actor=ben, reason="not yet")
    with pytest.raises(Conflict, match="rejected by ben"):
        approve(request, ben)
    other = request_serving(production, version, actor=anna, reason="again")
    with pytest.raises(Forbidden):
        change_requests.withdraw(other, actor=ben, reason="not mine")
    assert change_requests.withdraw(other, actor=anna, reason="never mind").state == "withdrawn"


def about_requests() -> list[str]:
    found = verification.verify(with_file=False).findings
    return [str(finding) for finding in found if "change request" in str(finding)]


FIELDS = {
    "action", "environment", "workload", "subject", "reason", "requested_by", "contributors", "approvals", "state",
    "ended_by",
}  # fmt: skip


def _said(action: str) -> dict[str, tuple[Any, Any]]:
    """Return the changes in the newest entry of this action: (before, after) by field."""
    diff = json.loads(bytes(Entry.objects.filter(action=action).latest("seq").body))["diff"]
    return {change["path"][1:]: (change.get("before"), change.get("after")) for change in diff}


def test_the_log_has_every_field_of_a_request_and_what_each_step_changed(
    production: Environment, version: PolicyVersion, anna: Actor, ben: Actor
) -> None:
    request = request_serving(production, version, actor=anna, reason="first")
    asked = _said("change.request")
    assert set(asked) == FIELDS
    assert asked["requested_by"] == (None, "anna")
    assert asked["reason"] == (None, "first")
    assert asked["environment"] == (None, "production")
    assert asked["workload"] == (None, "summaries")
    assert asked["state"] == (None, "waiting")
    change_requests.reject(request, actor=ben, reason="not yet")
    assert _said("change.reject") == {"state": ("waiting", "rejected"), "ended_by": ("", "ben")}
    other = request_serving(production, version, actor=anna, reason="again")
    change_requests.withdraw(other, actor=anna, reason="never mind")
    assert _said("change.withdraw") == {"state": ("waiting", "withdrawn"), "ended_by": ("", "anna")}


# --- four eyes off -----------------------------------------------------------------------------------


def test_an_admin_alone_does_not_switch_it_off(production: Environment, anna: Actor) -> None:
    with pytest.raises(ApprovalMissing, match="second person"):
        actions.edit_environment(production, actor=anna, reason="in the way", four_eyes=False)
    assert Environment.objects.get().four_eyes


def test_a_second_person_switches_it_off(production: Environment, anna: Actor, ben: Actor) -> None:
    request = request_four_eyes_off(production, actor=anna, reason="a quiet week")
    with pytest.raises(SelfApproval):
        approve(request, anna)
    assert approve(request, ben).state == "applied"
    assert not Environment.objects.get().four_eyes


def test_an_approval_that_comes_after_break_glass_changes_nothing_and_says_so(
    production: Environment, anna: Actor, ben: Actor
) -> None:
    """It was applied without an entry, so the log described the request as waiting for ever."""
    request = request_four_eyes_off(production, actor=anna, reason="a quiet week")
    actions.edit_environment(production, actor=anna, reason="a fire", four_eyes=False, break_glass=True)
    with pytest.raises(Conflict, match="no longer requires a second person: reject or withdraw"):
        approve(request, ben)
    assert ChangeRequest.objects.get().state == "waiting"
    assert change_requests.reject(request, actor=ben, reason="too late").state == "rejected"
    assert about_requests() == []


def test_one_person_can_turn_it_on(anna: Actor) -> None:
    staging = builders.environment("production", four_eyes=False)
    assert actions.edit_environment(staging, actor=anna, reason="from now on", four_eyes=True).four_eyes


# --- a requester who has lost the right --------------------------------------------------------------


def _to_serve(production: Environment, anna: Actor) -> ChangeRequest:
    version = builders.version(builders.workload("summaries"), actor=anna)
    return request_serving(production, version, actor=anna, reason="the first")


def _four_eyes_off(production: Environment, anna: Actor) -> ChangeRequest:
    return request_four_eyes_off(production, actor=anna, reason="a quiet week")


def _a_role(production: Environment, anna: Actor) -> ChangeRequest:
    return access.request_role(
        User.objects.create_user("cara"), "admin", "production", actor=anna, reason="more hands"
    )


Ask = Callable[[Environment, Actor], ChangeRequest]


@pytest.mark.parametrize("ask", [_to_serve, _four_eyes_off, _a_role])
@pytest.mark.parametrize("how", ["deactivated", "withdrawn"])
def test_nobody_can_approve_what_the_requester_may_no_longer_do(
    ask: Ask, how: str, production: Environment, anna: Actor, ben: Actor
) -> None:
    """Somebody who is dismissed could leave a request behind that makes a friend admin."""
    root = User.objects.create_superuser("root")
    request = ask(production, anna)
    user = User.objects.get(username="anna")
    if how == "deactivated":
        access.deactivate_person(user, actor=Actor.of_user(root), reason="left")
    else:
        user.memberships.filter(role__in=["admin", "operator"]).delete()
    with pytest.raises(ApprovalStale, match="anna, who requested this, may no longer do it"):
        approve(request, ben)
    assert ChangeRequest.objects.get().state == "waiting"
    assert not User.objects.filter(username="cara", memberships__role="admin").exists()
    assert change_requests.reject(request, actor=ben, reason="she left").state == "rejected"


# --- over HTTP ----------------------------------------------------------------------------------------


def test_the_api_requests_a_second_person(
    production: Environment, version: PolicyVersion, ben: Actor
) -> None:
    call = Caller(
        "viewer", "operator", "admin", user=User.objects.get(username="anna"), environment="production"
    )
    bens = Caller("viewer", "approver", user=User.objects.get(username="ben"), environment="production")
    path = "environments/production/assignments/summaries/serve"
    asked = call("POST", path, {"version": version.number, "reason": "first"})
    assert asked.status_code == 202
    found: dict[str, Any] = asked.json()
    assert not Assignment.objects.exists()
    at = f"change-requests/{found['id']}"
    assert bens("POST", f"{at}/approve", {"reason": "yes"}).status_code == 422  # without a binding
    assert (
        call("POST", f"{at}/approve", {"reason": "y", "binding": found["binding"]}).json()["code"]
        == "self_approval"
    )
    assert (
        bens("POST", f"{at}/approve", {"reason": "y", "binding": found["binding"]}).json()["state"]
        == "applied"
    )
    assert Assignment.objects.exists()

    off = call("POST", "environments/production/four-eyes-off", {"reason": "quiet"})
    assert off.status_code == 202
    assert (
        call("PATCH", "environments/production", {"four_eyes": False}, **{"If-Match": "*"}).status_code == 409
    )
    listed = bens("GET", "change-requests?state=waiting").json()["items"]
    assert [item["action"] for item in listed] == ["environment.four_eyes_off"]
    assert bens("GET", "change-requests?state=other").status_code == 422
    rejected = bens("POST", f"change-requests/{off.json()['id']}/reject", {"reason": "no"})
    assert rejected.json()["state"] == "rejected"
    broken = call("POST", "environments/production/four-eyes-off", {"reason": "fire", "break_glass": True})
    assert broken.json()["four_eyes"] is False
    assert Entry.objects.filter(action="environment.break_glass").exists()


def test_the_pages_request_a_second_person(production: Environment, version: PolicyVersion) -> None:
    browser = logged_in("anna", "operator", "admin")
    other = logged_in("eva", "approver")
    asked = browser.post(
        "/console/workloads/summaries/production/serve/",
        {"version": version.pk, "reason": "first"},
        follow=True,
    )
    assert "Another person must approve it" in asked.content.decode()
    request = ChangeRequest.objects.get()
    at = f"/console/changes/{request.pk}/"
    assert "Serve version 1 of summaries in production" in other.get("/console/").content.decode()
    assert "Withdraw" in browser.get(at).content.decode()
    form = {"reason": "yes", "expected_binding": change_requests.binding(request)}
    assert "somebody else must approve it" in browser.post(f"{at}approve/", form).content.decode()
    assert other.post(f"{at}approve/", {"reason": "yes", "expected_binding": "0"}).status_code == 422
    assert "Approved and applied" in other.post(f"{at}approve/", form, follow=True).content.decode()
    assert Assignment.objects.get().baseline == version

    off = browser.post("/console/environments/production/four-eyes-off/", {"reason": "quiet"}, follow=True)
    assert "Switch four eyes off in production" in off.content.decode()
    second = ChangeRequest.objects.get(state="waiting")
    gone = browser.post(f"/console/changes/{second.pk}/withdraw/", {"reason": "no"}, follow=True)
    assert "Withdrawn" in gone.content.decode()
    assert Environment.objects.get().four_eyes
    assert Client().get(at).status_code == 302
