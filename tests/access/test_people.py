"""Accounts: deactivated at once, activated again, and somebody who can do everything always remains."""

import json
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions, change_requests
from controlplane.access.models import Key, Membership, Session
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict, InvalidInput, LastAdmin, RoleMissing
from tests.support import builders
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db


def person(name: str, *roles: str, environment: str = "") -> User:
    user, _ = User.objects.get_or_create(username=name)
    for role in roles:
        Membership.objects.get_or_create(user=user, role=role, environment=environment)
    return user


def root() -> Actor:
    return Actor.of_user(person("root", "admin"))


def done() -> list[str]:
    return list(Entry.objects.order_by("seq").values_list("action", flat=True))


# --- deactivated ---------------------------------------------------------------------------------------------


def test_sessions_and_keys_end_at_once() -> None:
    client = logged_in("ann", "admin", environment="staging")
    call = Caller("admin", environment="staging", user=User.objects.get(username="ann"))
    assert client.get("/console/").status_code == call("GET", "teams").status_code == 200
    actions.deactivate_person(User.objects.get(username="ann"), actor=root(), reason="left")
    assert client.get("/console/")["Location"].startswith("/console/login/")
    assert client.get("/api/v1/teams").status_code == 401
    assert call("GET", "teams").json()["code"] == "key_revoked"
    assert not Session.objects.exists()
    assert done() == ["key.issue", "user.deactivate", "key.revoke"]


def test_why_is_not_in_the_entries_of_the_keys() -> None:
    """Everybody with a role in a key's environment reads those."""
    Caller("admin", environment="staging", user=person("ann", "admin", environment="staging"))
    actions.deactivate_person(person("ann"), actor=root(), reason="a complaint")
    revoked = Entry.objects.get(action="key.revoke")
    assert revoked.reason == "The account of its owner was deactivated."
    assert b"complaint" not in bytes(revoked.body)
    assert Entry.objects.get(action="user.deactivate").reason == "a complaint"


def test_activation_restores_no_sessions_or_keys() -> None:
    client = logged_in("ann", "viewer")
    ann = User.objects.get(username="ann")
    call = Caller("viewer", user=ann)
    actions.deactivate_person(ann, actor=root(), reason="left")
    actions.activate_person(ann, actor=root(), reason="is back")
    assert client.get("/console/").status_code == 302
    assert call("GET", "teams").json()["code"] == "key_revoked"
    assert logged_in("ann").get("/console/").status_code == 200


def test_others_stay_logged_in() -> None:
    ann, tom = logged_in("ann", "viewer"), logged_in("tom", "viewer")
    actions.deactivate_person(User.objects.get(username="ann"), actor=root(), reason="left")
    assert (ann.get("/console/").status_code, tom.get("/console/").status_code) == (302, 200)


def test_the_approval_of_a_deactivated_person_no_longer_counts() -> None:
    """In a request that needs two approvals, the first approver leaves before the second one agrees."""
    eva, ben = person("eva", "approver"), person("ben", "approver")
    request = builders.request_that_needs_two()
    binding = change_requests.binding(request)
    assert not change_requests.agree(request, actor=Actor.of_user(eva), reason="y", expected_binding=binding)
    actions.deactivate_person(eva, actor=root(), reason="left")
    assert not change_requests.agree(request, actor=Actor.of_user(ben), reason="y", expected_binding=binding)


def test_it_reports_that_it_is_already_done() -> None:
    ann = person("ann")
    with pytest.raises(Conflict, match="already active"):
        actions.activate_person(ann, actor=root(), reason="x")
    actions.deactivate_person(ann, actor=root(), reason="left")
    with pytest.raises(Conflict, match="already deactivated"):
        actions.deactivate_person(ann, actor=root(), reason="left")
    assert [outcome for (outcome,) in Entry.objects.order_by("seq").values_list("outcome")] == [
        "refused", "done", "refused",
    ]  # fmt: skip


CHANGES = [
    actions.deactivate_person,
    actions.activate_person,
    actions.end_sessions,
    actions.remove_second_factor,
    actions.withdraw_superuser,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_requires_an_admin_of_every_environment_and_a_reason(change: Any) -> None:
    ann, sam = person("ann"), Actor.of_user(person("sam", "admin", environment="staging"))
    with pytest.raises(RoleMissing):
        change(ann, actor=sam, reason="because")
    with pytest.raises(InvalidInput, match="give a reason"):
        change(ann, actor=root(), reason=" ")
    assert Entry.objects.get().outcome == "refused"


def test_a_lost_second_factor_is_removed() -> None:
    ann = person("ann")
    TOTP.activate(ann, "JBSWY3DPEHPK3PXP")
    client = logged_in("ann", "viewer")
    actions.remove_second_factor(ann, actor=root(), reason="lost her telephone")
    assert not Authenticator.objects.exists()
    assert client.get("/console/").status_code == 302
    with pytest.raises(Conflict):
        actions.remove_second_factor(ann, actor=root(), reason="again")


# --- the last admin --------------------------------------------------------------------------------------------


def test_the_last_admin_cannot_be_removed() -> None:
    only = person("root", "admin")
    held = Membership.objects.get()
    for change in (
        lambda: actions.deactivate_person(only, actor=root(), reason="x"),
        lambda: actions.withdraw_role(held, actor=root(), reason="x"),
    ):
        with pytest.raises(LastAdmin):
            change()
    assert Membership.objects.filter(pk=held.pk).exists() and User.objects.get().is_active
    assert [entry.outcome for entry in Entry.objects.all()] == ["refused", "refused"]


def test_the_last_superuser_cannot_be_removed_without_an_admin() -> None:
    only = User.objects.create_superuser("only")
    actor = Actor.of_user(only)
    with pytest.raises(LastAdmin):
        actions.withdraw_superuser(only, actor=actor, reason="x")
    with pytest.raises(LastAdmin):
        actions.deactivate_person(only, actor=actor, reason="x")
    person("root", "admin")
    actions.withdraw_superuser(only, actor=actor, reason="x")
    assert not User.objects.get(username="only").is_superuser


def test_inactive_admins_and_admins_of_one_environment_do_not_count() -> None:
    only = person("root", "admin")
    person("sam", "admin", environment="staging")
    User.objects.filter(pk=person("gone", "admin").pk).update(is_active=False)
    with pytest.raises(LastAdmin):
        actions.deactivate_person(only, actor=root(), reason="x")
    person("second", "admin")
    actions.deactivate_person(only, actor=root(), reason="x")


def test_a_superuser_can_drop_their_own_admin_role() -> None:
    User.objects.create_superuser("root")
    held = Membership.objects.create(user=User.objects.get(), role="admin")
    actions.withdraw_role(held, actor=root(), reason="not needed")


# --- pages and API -----------------------------------------------------------------------------------------------


def test_the_list_shows_everybodys_roles() -> None:
    builders.environment("production"), builders.environment("staging")
    person("ann", "editor", environment="staging"), person("bob", "approver", environment="production")
    words = text(logged_in("root", "admin").get("/console/people/"))
    for word in ("ann", "editor", "bob", "approver", "production", "staging", "Every environment"):
        assert word in words
    found = text(logged_in("root", "admin").get("/console/people/?q=ann"))
    assert "ann" in found and "bob" not in found


def test_an_admin_of_one_environment_sees_only_its_roles() -> None:
    builders.environment("production"), builders.environment("staging")
    ann = person("ann", "editor", environment="staging")
    person("ann", "approver", environment="production")
    client = logged_in("sam", "admin", environment="staging")
    words = text(client.get(f"/console/people/{ann.pk}/"))
    assert "editor" in words and "approver: approves" in words.split("Give a role")[1]
    assert "approver" not in words.split("Give a role")[0]
    assert client.get(f"/console/people/{ann.pk}/deactivate/").status_code == 404
    other = Membership.objects.get(role="approver")
    assert client.post(f"/console/people/roles/{other.pk}/withdraw/", {"reason": "x"}).status_code == 404


def test_the_page_grants_and_withdraws_roles() -> None:
    builders.environment("staging")
    ann = person("ann")
    client = logged_in("root", "admin")
    form = {"role": "editor", "environment": "staging", "reason": "writes policies"}
    assert client.post(f"/console/people/{ann.pk}/", form).status_code == 302
    again = client.post(f"/console/people/{ann.pk}/", form)
    assert again.status_code == 422 and "already" in text(again)
    held = Membership.objects.get(user=ann)
    address = f"/console/people/roles/{held.pk}/withdraw/"
    assert "Withdraw the role editor from ann" in text(client.get(address))
    assert client.post(address, {"reason": "moved on"}).status_code == 302
    assert client.post(address, {"reason": "moved on"}).status_code == 404
    assert done()[1:] == ["membership.grant", "membership.grant", "membership.withdraw"]


def test_a_forged_form_cannot_grant_a_role_elsewhere() -> None:
    builders.environment("production"), builders.environment("staging")
    ann, client = person("ann"), logged_in("sam", "admin", environment="staging")
    for place in ("production", "", "nowhere"):
        form = {"role": "admin", "environment": place, "reason": "x"}
        assert client.post(f"/console/people/{ann.pk}/", form).status_code == 404, place
    assert not Membership.objects.filter(user=ann).exists()


@pytest.mark.parametrize(
    ("change", "title", "button", "message", "danger"),
    [
        ("deactivate", "Deactivate ann", "Deactivate", "ann is deactivated.", True),
        ("activate", "Activate ann", "Activate", "ann is active.", False),
        ("log-out", "Log ann out everywhere", "Log out", "ann is logged out everywhere.", False),
        (
            "remove-second-factor",
            "Remove the second factor of ann",
            "Remove",
            "ann has no second factor now.",
            True,
        ),
        (
            "withdraw-superuser",
            "Withdraw the superuser rights of ann",
            "Withdraw",
            "ann is no longer an administrator of the instance.",
            True,
        ),
    ],
)
def test_the_page_changes_an_account(
    change: str, title: str, button: str, message: str, danger: bool
) -> None:
    ann, client = (
        User.objects.create_superuser("ann", is_active=change != "activate"),
        logged_in("root", "admin"),
    )
    TOTP.activate(ann, "JBSWY3DPEHPK3PXP")
    address = f"/console/people/{ann.pk}/{change}/"
    page = client.get(address)
    assert f"<h1>{title}</h1>" in text(page)
    assert f">{button}</button>" in text(page)
    assert len(page.context["about"].split()) > 5, "it says what follows"
    assert ("pm-danger" in text(page), "pm-sheet-danger" in text(page)) == (danger, danger)
    assert f'href="/console/people/{ann.pk}/"' in text(page)
    assert client.post(address, {"reason": ""}).status_code == 422
    answer = client.post(address, {"reason": "because"}, follow=True)
    assert answer.redirect_chain == [(f"/console/people/{ann.pk}/", 302)]
    assert message in text(answer)
    assert len(done()) == 1


def test_the_page_explains_why_the_last_admin_stays() -> None:
    client = logged_in("root", "admin")
    root_pk = User.objects.get().pk
    answer = client.post(f"/console/people/{root_pk}/deactivate/", {"reason": "x"})
    assert answer.status_code == 422
    assert "Nobody else is an active admin" in text(answer)
    assert client.get("/console/").status_code == 200


def test_pages_of_invisible_people_are_not_found() -> None:
    client = logged_in("root", "admin")
    for path in ("people/99999/", "people/99999999999999/", f"people/{User.objects.get().pk}/no-such-thing/"):
        assert client.get(f"/console/{path}").status_code == 404


def test_people_is_in_the_navigation_of_admins_only() -> None:
    assert "/console/people/" in logged_in("root", "admin").get("/console/").content.decode()
    assert "/console/people/" not in logged_in("tom", "viewer").get("/console/").content.decode()


def test_the_api_lists_and_changes_people() -> None:
    ann = person("ann", "editor", environment="staging")
    call, key = Caller("admin"), Caller("viewer", user=ann)
    items = call("GET", "people").json()["items"]
    assert [item["username"] for item in items] == ["ann"]
    assert items[0] | {"roles": None, "id": 0} == {
        "id": 0, "username": "ann", "name": "", "email": "", "active": True, "superuser": False,
        "second_factor": False, "last_login": None, "roles": None, "teams": [],
    }  # fmt: skip
    assert [(role["environment"], role["role"]) for role in items[0]["roles"]] == [("staging", "editor")]
    person("root", "admin")
    answer = call("POST", f"people/{ann.pk}/deactivate", {"reason": "left"})
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    assert key("GET", "teams").status_code == 401
    assert call("POST", f"people/{ann.pk}/deactivate", {"reason": "left"}).status_code == 409
    assert call("POST", f"people/{ann.pk}/activate", {"reason": "back"}).json()["active"] is True
    assert call("POST", f"people/{ann.pk}/end-sessions", {"reason": "lost laptop"}).status_code == 200
    assert call("POST", f"people/{ann.pk}/activate", {}).status_code == 422
    assert call("GET", "people/99999999999999").status_code == 404
    assert Key.objects.get(key_id=key.key.key_id).revoked_at is not None


def test_the_api_refuses_others_than_admins() -> None:
    ann = person("ann")
    for call in (Caller("viewer", "editor", "approver", "operator"), Caller("admin", workloads=["one"])):
        assert call("GET", "people").status_code == 403
        assert call("POST", f"people/{ann.pk}/deactivate", {"reason": "x"}).status_code == 403
    staging = Caller("admin", environment="staging")
    assert staging("GET", "people").status_code == 200
    assert staging("POST", f"people/{ann.pk}/deactivate", {"reason": "x"}).json()["code"] == "role_missing"
    assert Client().get("/api/v1/people").status_code == 401


def test_entries_about_people_contain_no_password() -> None:
    ann = User.objects.create_user("ann", password="a long enough word")
    actions.deactivate_person(ann, actor=root(), reason="left")
    assert "argon2" not in json.dumps([bytes(e.body).decode() for e in Entry.objects.all()])


# --- teams ---------------------------------------------------------------------------------------------------


def test_the_pages_create_a_team_and_show_its_members() -> None:
    ann, client = person("ann"), logged_in("root", "admin")
    assert client.post("/console/teams/", {"name": "support", "reason": "new"})["Location"].endswith(
        "/teams/support/"
    )
    assert client.post("/console/teams/", {"name": "support", "reason": "new"}).status_code == 422
    answer = client.post("/console/teams/support/", {"members": [ann.pk], "reason": "theirs"})
    assert answer.status_code == 302
    assert "ann" in text(client.get("/console/teams/"))
    assert ann.pointsman_teams.get().name == "support"
    assert client.post("/console/teams/support/", {"members": [999], "reason": "x"}).status_code == 422


def test_others_can_see_teams_but_not_change_them() -> None:
    actions.create_team("support", actor=SYSTEM)
    for client in (logged_in("tom", "viewer"), logged_in("sam", "admin", environment="staging")):
        assert (
            client.get("/console/teams/").status_code
            == client.get("/console/teams/support/").status_code
            == 200
        )
        assert client.post("/console/teams/", {"name": "x", "reason": "x"}).status_code in (403, 404)
        assert client.post("/console/teams/support/", {"members": [], "reason": "x"}).status_code in (
            403,
            404,
        )
    assert logged_in("stranger").get("/console/teams/").status_code == 404
