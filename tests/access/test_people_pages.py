"""The pages about people, invitations and teams: their texts, their order, and where they lead."""

from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions
from controlplane.access.models import Invitation, Membership, Team
from controlplane.access.pages.forms import AcceptForm, GrantForm, InviteForm, MembersForm, NewTeamForm
from controlplane.core.actors import SYSTEM
from tests.support import builders
from tests.support.pages import text
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
PEOPLE = ("People", "/console/people/")
EDITOR = [{"environment": "staging", "role": "editor"}]
INVITE = {"invited": "Nina", "roles_staging": ["editor"], "days": 3, "reason": "new"}


@pytest.fixture
def root() -> Client:
    builders.environment("staging")
    return logged_in("root", "admin")


def ann(**fields: Any) -> User:
    user = User.objects.create_user("ann", **fields)
    Membership.objects.create(user=user, role="editor", environment="staging")
    return user


# --- the list ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("an", ["ann"]),
        ("ANNA", ["ann"]),
        ("example.com", ["ann", "bob"]),
        ("  bob ", ["bob"]),
        ("nobody", []),
        ("", ["ann", "bob", "root"]),
    ],
)
def test_people_are_found_by_name_and_address(root: Client, asked: str, found: list[str]) -> None:
    ann(first_name="Anna", email="x@example.com")
    User.objects.create_user("bob", email="bob@example.com")
    page = root.get("/console/people/", {"q": asked})
    assert [user.username for user in page.context["rows"]] == found
    assert [user.username for user, _ in page.context["table"]] == found


def test_the_list_has_a_column_for_each_environment_and_only_open_invitations(root: Client) -> None:
    user = ann()
    kept, _ = actions.invite("Nina", roles=EDITOR, reason="x", actor=SYSTEM)
    revoked, _ = actions.invite("Tom", roles=EDITOR, reason="x", actor=SYSTEM)
    actions.revoke_invitation(revoked.pk, actor=SYSTEM, reason="x")
    _, token = actions.invite("Bob", roles=EDITOR, reason="x", actor=SYSTEM)
    actions.accept_as(actions.token_hash(token), user)
    page = root.get("/console/people/")
    assert page.context["columns"] == ["", "staging"]
    assert page.context["title"] == "People"
    cells = {shown.username: roles for shown, roles in page.context["table"]}
    assert cells == {"ann": [("", []), ("staging", ["editor"])], "root": [("", ["admin"]), ("staging", [])]}
    assert list(page.context["invitations"]) == [kept]


# --- one person --------------------------------------------------------------------------------------------


def test_the_page_of_a_person_has_their_keys_and_latest_entries(root: Client) -> None:
    user = ann()
    for number in range(12):
        actions.end_sessions(user, actor=SYSTEM, reason=f"{number}")
    keys = [
        actions.issue_key("admin", "", label, scopes=["viewer"], user=user, actor=SYSTEM)[0]
        for label in ("old", "new", "lost")
    ]
    actions.revoke_key(keys[2].key_id, actor=SYSTEM, reason="lost")
    page = root.get(f"/console/people/{user.pk}/")
    assert page.status_code == 200
    assert (page.context["person"], page.context["title"]) == (user, "ann")
    assert list(page.context["keys"]) == [keys[1], keys[0]]
    entries = page.context["entries"]
    assert [entry.reason for entry, _ in entries] == [f"{n}" for n in range(11, 1, -1)]
    assert {sentence for _, sentence in entries} == {"Pointsman ended the sessions of user ann"}
    assert "Pointsman ended the sessions of user ann" in text(page) and "user.end" not in text(page)
    assert page.context["crumbs"] == [PEOPLE]
    assert page.context["may_close"] is True
    staging = logged_in("sam", "admin", environment="staging")
    assert staging.get(f"/console/people/{user.pk}/").context["may_close"] is False


def test_a_granted_and_a_withdrawn_role_are_confirmed(root: Client) -> None:
    user = ann()
    here = f"/console/people/{user.pk}/"
    form = {"role": "viewer", "environment": "staging", "reason": "x"}
    granted = root.post(here, form, follow=True)
    assert granted.redirect_chain == [(here, 302)]
    assert "ann now has the role." in text(granted)
    address = f"/console/people/roles/{Membership.objects.get(user=user, role='viewer').pk}/withdraw/"
    page = root.get(address)
    assert page.status_code == 200
    title = "Withdraw the role viewer from ann"
    shown = {name: page.context[name] for name in ("title", "heading", "button", "danger", "back", "crumbs")}
    assert shown == {
        "title": title, "heading": title, "button": "Withdraw", "danger": True, "back": here,
        "crumbs": [PEOPLE, ("ann", here)],
    }  # fmt: skip
    assert "In staging, from their next request on." in text(page)
    assert "pm-danger" in text(page)
    withdrawn = root.post(address, {"reason": "x"}, follow=True)
    assert withdrawn.redirect_chain == [(here, 302)]
    assert "ann is no longer viewer." in text(withdrawn)
    assert list(user.memberships.values_list("role", flat=True)) == ["editor"]


def test_the_page_of_ones_own_account_has_ones_own_roles_teams_and_keys() -> None:
    user, other = ann(), User.objects.create_user("bob")
    Membership.objects.create(user=user, role="approver", environment="production")
    Membership.objects.create(user=user, role="viewer")
    for name in ("support", "sales", "others"):
        Team.objects.create(name=name).members.add(other if name == "others" else user)
    keys = [
        actions.issue_key("admin", "", label, scopes=["viewer"], user=owner, actor=SYSTEM)[0]
        for label, owner in (("old", user), ("new", user), ("lost", user), ("his", other))
    ]
    actions.revoke_key(keys[2].key_id, actor=SYSTEM, reason="lost")
    SocialAccount.objects.create(user=other, provider="company", uid="7")
    TOTP.activate(other, "JBSWY3DPEHPK3PXP")
    page = logged_in("ann").get("/console/account/")
    shown = page.context
    assert (shown["person"], shown["title"]) == (user, "Your account")
    held = [(membership.environment, membership.role) for membership in shown["memberships"]]
    assert held == [("", "viewer"), ("production", "approver"), ("staging", "editor")]
    assert [team.name for team in shown["teams"]] == ["sales", "support"]
    assert list(shown["keys"]) == [keys[1], keys[0]]
    assert (shown["totp"], shown["passkeys"], shown["codes_left"]) == (None, [], None)
    assert (shown["company"], shown["connected"]) == ("", False)
    theirs = logged_in("bob", "viewer").get("/console/account/").context
    assert (theirs["totp"].user, theirs["connected"]) == (other, True)


# --- invitations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "valid"), [(0, False), (1, True), (3, True), (30, True), (31, False), ("", False)]
)
def test_the_days_of_a_link_have_limits(root: Client, days: Any, valid: bool) -> None:
    answer = root.post("/console/people/invite/", INVITE | {"days": days})
    assert answer.status_code == (200 if valid else 422)
    if valid:
        made = Invitation.objects.get()
        assert made.expires_at - made.created_at == timedelta(days=days)
    else:
        assert list(answer.context["form"].errors) == ["days"]
        assert not Invitation.objects.exists()


def test_the_page_invites_with_roles_teams_and_an_address(root: Client) -> None:
    team = Team.objects.create(name="support")
    page = root.get("/console/people/invite/")
    assert page.status_code == 200
    assert (page.context["back"], page.context["crumbs"]) == ("/console/people/", [PEOPLE])
    assert page.context["form"]["days"].value() == 3
    more = {"email": "n@example.com", "teams": [team.pk], "roles_": ["viewer"]}
    made = root.post("/console/people/invite/", INVITE | more)
    kept = Invitation.objects.get()
    assert (kept.email, kept.teams) == ("n@example.com", ["support"])
    assert kept.roles == [{"environment": "", "role": "viewer"}, *EDITOR]
    assert (made.context["invitation"], made.context["crumbs"]) == (kept, [PEOPLE])
    assert made.context["link"] in text(made)


def test_the_page_that_revokes_says_what_follows(root: Client) -> None:
    made, _ = actions.invite("Nina", roles=EDITOR, reason="x", actor=SYSTEM)
    address = f"/console/people/invitations/{made.pk}/revoke/"
    page = root.get(address)
    assert page.status_code == 200
    title = "Revoke the invitation of Nina"
    shown = {name: page.context[name] for name in ("title", "heading", "button", "danger", "back")}
    assert shown == {
        "title": title, "heading": title, "button": "Revoke", "danger": True, "back": "/console/people/",
    }  # fmt: skip
    assert "The link stops working at once." in text(page) and "pm-danger" in text(page)
    assert root.post(address, {"reason": ""}).status_code == 422
    answer = root.post(address, {"reason": "wrong one"}, follow=True)
    assert answer.redirect_chain == [("/console/people/", 302)]
    assert "Revoked. The link no longer works." in text(answer)


# --- teams -------------------------------------------------------------------------------------------------


def test_the_pages_of_teams_lead_to_each_other(root: Client) -> None:
    user = ann()
    made = root.post("/console/teams/", {"name": "support", "reason": "new"}, follow=True)
    assert made.redirect_chain == [("/console/teams/support/", 302)]
    assert "The team support was created." in text(made)
    Team.objects.get().members.add(user)
    page = root.get("/console/teams/support/")
    assert page.status_code == 200
    assert (page.context["title"], page.context["crumbs"]) == (
        "support",
        [PEOPLE, ("Teams", "/console/teams/")],
    )
    assert list(page.context["form"]["members"].value()) == [user.pk]
    listed = root.get("/console/teams/")
    assert (listed.context["title"], listed.context["crumbs"]) == ("Teams", [PEOPLE])
    assert [team.name for team in listed.context["rows"]] == ["support"]
    assert (page.context["may_change"], listed.context["may_change"]) == (True, True)
    viewer = logged_in("tom", "viewer")
    for path in ("teams/", "teams/support/"):
        assert viewer.get(f"/console/{path}").context["may_change"] is False
    saved = root.post("/console/teams/support/", {"members": [], "reason": "x"}, follow=True)
    assert "Saved." in text(saved)
    assert not Team.objects.get().members.exists()


# --- forms -------------------------------------------------------------------------------------------------


def test_the_fields_of_each_form_are_in_the_order_in_which_people_fill_them_in() -> None:
    orders = {
        InviteForm(["", "staging"]): [
            "invited",
            "email",
            "roles_",
            "roles_staging",
            "teams",
            "days",
            "reason",
        ],
        GrantForm(["", "staging"]): ["role", "environment", "reason", "break_glass"],
        NewTeamForm(): ["name", "reason"],
        MembersForm(): ["members", "reason", "seen"],
        AcceptForm(): ["username", "full_name", "password", "again"],
    }
    for form, names in orders.items():
        assert list(form.fields) == names


def test_optional_fields_of_each_form() -> None:
    def optional(form: Any) -> set[str]:
        return {name for name, field in form.fields.items() if not field.required}

    assert optional(InviteForm(["staging"])) == {"email", "teams", "roles_staging"}
    assert optional(GrantForm(["", "staging"])) == {"environment", "break_glass"}
    assert optional(GrantForm(["staging"])) == {"break_glass"}
    assert optional(MembersForm()) == {"members", "seen"}
    assert optional(AcceptForm()) == {"full_name"}
    assert optional(NewTeamForm()) == set()


def test_spaces_around_a_new_password_belong_to_it() -> None:
    form = {"username": "nina", "password": " a long enough word ", "again": " a long enough word "}
    _, token = actions.invite("Nina", roles=EDITOR, reason="x", actor=SYSTEM)
    client = Client()
    client.get(f"/console/invitation/{token}/")
    assert client.post("/console/invitation/", form | {"again": form["again"].strip()}).status_code == 422
    assert client.post("/console/invitation/", form).status_code == 302
    assert User.objects.get(username="nina").check_password(form["password"])
