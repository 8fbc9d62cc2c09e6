"""Making somebody an approver needs two people; otherwise four eyes could be two accounts of one person."""

from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.access import actions, change_requests
from controlplane.access.models import ChangeRequest, Invitation, Membership
from controlplane.access.permissions import has_role
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists, ApprovalMissing, Conflict, SelfApproval
from policies_app.four_eyes.actions import approve_change
from tests.support import builders
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
PUPPET_ROLES = [("approver", "production"), ("admin", "production"), ("approver", ""), ("admin", "")]


@pytest.fixture(autouse=True)
def _environments() -> None:
    builders.environment("production", four_eyes=True)
    builders.environment("staging", four_eyes=False)


def person(name: str, *roles: str, environment: str = "") -> User:
    user = User.objects.filter(username=name).first()
    user = user or actions.create_person(name, actor=SYSTEM, reason="new here")
    for role in roles:
        if not has_role(user, role, environment):
            actions.grant_role(user, role, environment, actor=SYSTEM)
    return user


def actor(name: str, *roles: str, environment: str = "") -> Actor:
    return Actor.of_user(person(name, *roles, environment=environment))


def agree(request: ChangeRequest, by: Actor) -> ChangeRequest:
    bound = change_requests.binding(request)
    return approve_change(request, actor=by, reason="I know her", expected_binding=bound)


@pytest.mark.parametrize(("role", "environment"), PUPPET_ROLES)
def test_an_admin_alone_cannot_make_an_approver_if_somebody_else_could_agree(
    role: str, environment: str
) -> None:
    person("eva", "approver", environment="production")
    root, puppet = actor("root", "admin"), person("puppet")
    with pytest.raises(ApprovalMissing, match="needs a second person"):
        actions.grant_role(puppet, role, environment, actor=root, reason="x")
    with pytest.raises(ApprovalMissing):
        actions.invite("Puppet", actor=root, reason="x", roles=[{"role": role, "environment": environment}])
    assert not Membership.objects.filter(user=puppet).exists() and not Invitation.objects.exists()
    refused = Entry.objects.filter(outcome="refused").order_by("seq").values_list("action", flat=True)
    assert list(refused) == ["membership.grant", "invitation.create"]


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize(
    ("held", "place", "asked", "needs_two"),
    [
        ("approver", "production", "production", True),
        ("admin", "production", "production", True),
        ("approver", "", "production", True),
        ("admin", "", "production", True),
        ("approver", "staging", "production", False),
        ("editor", "production", "production", False),
        ("approver", "production", "", True),
        ("approver", "staging", "", True),
        ("editor", "", "", False),
        ("approver", "", "staging", False),
    ],
)
def test_it_counts_who_can_approve_there_now_or_could_before(
    held: str, place: str, asked: str, needs_two: bool, removed: bool
) -> None:
    role = actions.grant_role(person("eva"), held, place, actor=SYSTEM)
    if removed:
        actions.withdraw_role(role, actor=SYSTEM, reason="x")
    puppet, root = person("puppet"), actor("root")
    if needs_two:
        with pytest.raises(ApprovalMissing):
            actions.grant_role(puppet, "approver", asked, actor=root, reason="x")
    else:
        actions.grant_role(puppet, "approver", asked, actor=root, reason="x")
    assert Membership.objects.filter(user=puppet).exists() is not needs_two


def test_roles_that_approve_nothing_need_one_person() -> None:
    person("eva", "approver", environment="production")
    root, ann = actor("root", "admin"), person("ann")
    for role, environment in (
        ("editor", "production"),
        ("operator", ""),
        ("viewer", ""),
        ("approver", "staging"),
    ):
        actions.grant_role(ann, role, environment, actor=root, reason="x")


def test_the_first_approver_needs_one_person() -> None:
    root = actor("root", "admin")
    actions.grant_role(person("eva"), "approver", "production", actor=root, reason="the first")
    with pytest.raises(ApprovalMissing):
        actions.grant_role(person("ben"), "approver", "production", actor=root, reason="the second")


@pytest.mark.parametrize("how", ["withdrawn", "deactivated"])
def test_removing_the_other_approvers_first_does_not_help(how: str) -> None:
    root, eva = actor("root", "admin"), person("eva", "approver", environment="production")
    if how == "withdrawn":
        actions.withdraw_role(Membership.objects.get(user=eva), actor=root, reason="x")
    else:
        actions.deactivate_person(eva, actor=root, reason="x")
    with pytest.raises(ApprovalMissing):
        actions.grant_role(person("puppet"), "approver", "production", actor=root, reason="x")


def test_withdrawing_the_rights_of_the_other_superuser_first_does_not_help() -> None:
    root = actor("root", "admin")
    eva = actions.create_person("eva", actor=SYSTEM, reason="new here", superuser=True)
    actions.withdraw_superuser(eva, actor=root, reason="x")
    with pytest.raises(ApprovalMissing):
        actions.grant_role(person("puppet"), "approver", "production", actor=root, reason="x")


def test_it_is_granted_when_another_person_agrees() -> None:
    eva, root = actor("eva", "approver", environment="production"), actor("root", "admin")
    ben = person("ben")
    request = actions.request_role(ben, "approver", "production", actor=root, reason="more hands")
    with pytest.raises(SelfApproval):
        agree(request, root)
    assert agree(request, eva).state == "applied"
    assert has_role(ben, "approver", "production")
    entry = Entry.objects.latest("seq")
    assert (entry.action, entry.actor_label, entry.target_id) == ("membership.grant", "eva", str(ben.pk))
    assert b"more hands" in bytes(entry.body)
    assert verification.verify().findings == []


def test_nobody_can_agree_to_their_own_role() -> None:
    eva, root = actor("eva", "approver", environment="production"), actor("root", "admin")
    request = actions.request_role(
        User.objects.get(username="eva"), "admin", "production", actor=root, reason="x"
    )
    with pytest.raises(SelfApproval):
        agree(request, eva)


def test_a_missing_right_cannot_be_requested() -> None:
    person("eva", "approver", environment="production")
    root, ann = actor("root", "admin"), person("ann")
    with pytest.raises(Conflict, match="One person may grant"):
        actions.request_role(ann, "viewer", "production", actor=root, reason="x")
    with pytest.raises(AlreadyExists):
        actions.request_role(
            User.objects.get(username="eva"), "approver", "production", actor=root, reason="x"
        )


def test_several_people_can_wait_for_a_role_in_one_environment() -> None:
    """The second request was refused as "the same change", although it was about somebody else."""
    eva, root = actor("eva", "approver", environment="production"), actor("root", "admin")
    cara, dora = person("cara"), person("dora")
    first = actions.request_role(cara, "approver", "production", actor=root, reason="more hands")
    second = actions.request_role(dora, "approver", "production", actor=root, reason="more hands")
    other = actions.request_role(cara, "admin", "production", actor=root, reason="more hands")
    with pytest.raises(
        AlreadyExists, match=r"The role approver for cara in production already waits"
    ) as told:
        actions.request_role(cara, "approver", "production", actor=root, reason="again")
    assert "membership.grant" not in str(told.value)
    assert {agree(request, eva).state for request in (first, second, other)} == {"applied"}
    assert has_role(dora, "approver", "production") and has_role(cara, "admin", "production")
    assert verification.verify().findings == []


def test_a_role_can_be_requested_again_after_the_request_has_ended() -> None:
    eva, root = actor("eva", "approver", environment="production"), actor("root", "admin")
    cara = person("cara")
    asked = actions.request_role(cara, "approver", "", actor=root, reason="more hands")
    with pytest.raises(AlreadyExists, match="for cara in every environment already waits"):
        actions.request_role(cara, "approver", "", actor=root, reason="again")
    change_requests.withdraw(asked, actor=root, reason="not yet")
    actions.request_role(cara, "approver", "", actor=root, reason="now")
    assert eva.user_id is not None


def test_break_glass_is_recorded_under_its_own_name() -> None:
    person("eva", "approver", environment="production")
    ben, root = person("ben"), actor("root", "admin")
    actions.grant_role(ben, "approver", "production", actor=root, reason="all away", break_glass=True)
    assert Entry.objects.latest("seq").action == "membership.break_glass"
    assert verification.verify().findings == []


def test_the_page_creates_a_request_if_a_second_person_is_needed() -> None:
    person("eva", "approver", environment="production"), person("root", "admin")
    ben, client = person("ben"), logged_in("root")
    form: dict[str, Any] = {"role": "approver", "environment": "production", "reason": "more hands"}
    answer = client.post(f"/console/people/{ben.pk}/", form, follow=True)
    assert "Requested. Another person must approve it" in text(answer)
    assert not has_role(ben, "approver", "production")
    listed = logged_in("eva").get("/console/changes/")
    assert "Make ben approver in production" in text(listed)
    page = logged_in("eva").get(f"/console/changes/{ChangeRequest.objects.get().pk}/")
    assert page.status_code == 200
    again = client.post(f"/console/people/{ben.pk}/", form | {"break_glass": "on"})
    assert again.status_code == 302 and has_role(ben, "approver", "production")


def test_the_api_creates_a_request_if_a_second_person_is_needed() -> None:
    person("eva", "approver", environment="production"), person("ben")
    call = Caller("admin", user=person("root", "admin"))
    body = {"user": "ben", "role": "approver", "environment": "production", "reason": "more hands"}
    refused = call("POST", "memberships", body)
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_missing")
    asked = call("POST", "membership-requests", body)
    assert asked.status_code == 201
    assert call("GET", f"change-requests/{asked.json()['change_request']}").json()["state"] == "waiting"
    assert call("POST", "memberships", body | {"break_glass": True}).status_code == 201
