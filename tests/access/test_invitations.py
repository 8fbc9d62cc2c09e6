"""Invitations: a link that works once, while it is valid, and gives at most what its inviter may give."""

import json
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from controlplane.access import actions
from controlplane.access.models import Invitation, Membership, Session, Team
from controlplane.access.permissions import has_role
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists, InvalidInput, InvitationEnded, PointsmanError, RoleMissing
from tests.support import builders
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough word"
EDITOR = [{"environment": "staging", "role": "editor"}]
FORM = {"username": "nina", "full_name": "Nina N.", "password": PASSWORD, "again": PASSWORD}


def admin(name: str = "root", environment: str = "") -> Actor:
    user = User.objects.filter(username=name).first()
    user = user or actions.create_person(name, actor=SYSTEM, reason="new here")
    if not has_role(user, "admin", environment):
        actions.grant_role(user, "admin", environment, actor=SYSTEM)
    return Actor.of_user(user)


def invited(by: Actor | None = None, **fields: Any) -> tuple[Invitation, str]:
    options: dict[str, Any] = {"roles": EDITOR, "reason": "a new colleague", **fields}
    return actions.invite("Nina", actor=by or admin(), **options)


def opened(token: str, client: Client | None = None) -> Client:
    client = client or Client()
    assert client.get(f"/console/invitation/{token}/")["Location"] == "/console/invitation/"
    return client


def bodies(action: str) -> list[dict[str, Any]]:
    return [json.loads(bytes(entry.body)) for entry in Entry.objects.filter(action=action).order_by("seq")]


# --- accepted --------------------------------------------------------------------------------------------


def test_it_creates_an_account_with_its_roles_and_logs_it_in() -> None:
    Team.objects.create(name="support")
    _, token = invited(teams=["support"])
    client = opened(token)
    assert "root invites you" in text(client.get("/console/invitation/"))
    assert client.post("/console/invitation/", FORM)["Location"] == "/console/"
    assert client.get("/console/").status_code == 200
    nina = User.objects.get(username="nina")
    assert (nina.first_name, nina.is_staff, nina.is_superuser) == ("Nina N.", False, False)
    assert nina.check_password(PASSWORD)
    assert list(nina.memberships.values_list("environment", "role")) == [("staging", "editor")]
    assert nina.pointsman_teams.get().name == "support"
    assert Client().post("/console/login/", {"username": "nina", "password": PASSWORD}).status_code == 302


def test_each_step_is_an_entry_without_the_token_or_the_password() -> None:
    invitation, token = invited()
    opened(token).post("/console/invitation/", FORM)
    done = list(Entry.objects.order_by("seq").values_list("action", "actor_label"))
    assert done[2:] == [
        ("invitation.create", "root"),
        ("user.create", "nina"),
        ("membership.grant", "nina"),
        ("invitation.accept", "nina"),
        ("session.begin", "nina"),
    ]
    everything = b"".join(bytes(entry.body) for entry in Entry.objects.all()).decode()
    for secret in (token, actions.token_hash(token), PASSWORD):
        assert secret not in everything
    assert f"root invited them (invitation {invitation.pk})." in everything
    assert verification.verify().findings == []


def test_a_changed_invitation_is_detected() -> None:
    invitation, _ = invited()
    Invitation.objects.update(roles=[{"environment": "", "role": "admin"}])
    assert [str(finding) for finding in verification.verify().findings][0].startswith(
        f"invitation {invitation.pk}: "
    )


def test_it_works_once() -> None:
    _, token = invited()
    first, second = opened(token), opened(token)
    assert first.post("/console/invitation/", FORM).status_code == 302
    again = second.post("/console/invitation/", FORM | {"username": "other"})
    assert again.status_code == 410
    assert "already been used" in text(again)
    assert not User.objects.filter(username="other").exists()


def refused() -> list[tuple[str, str, str]]:
    rows = Entry.objects.filter(outcome="refused").order_by("seq")
    return list(rows.values_list("action", "actor_kind", "target_id"))


def test_a_refused_link_is_an_entry_but_a_mistyped_field_is_not() -> None:
    invitation, token = invited()
    User.objects.create_user("nina")
    client, late = opened(token), opened(token)
    assert client.get("/console/invitation/").status_code == 200
    assert client.post("/console/invitation/", FORM | {"again": "another"}).status_code == 422
    assert client.post("/console/invitation/", FORM | {"username": "no name"}).status_code == 422
    assert refused() == []
    assert client.post("/console/invitation/", FORM).status_code == 422  # the name is taken
    assert client.post("/console/invitation/", FORM | {"username": "other"}).status_code == 302
    assert late.get("/console/invitation/").status_code == 410  # reading writes nothing
    assert late.post("/console/invitation/", FORM).status_code == 410
    assert opened("unknown").post("/console/invitation/", FORM).status_code == 410
    one = ("invitation.accept", "visitor", str(invitation.pk))
    assert refused() == [one, one, ("invitation.accept", "visitor", "of an unknown link")]


def test_a_logged_in_person_gets_the_roles_and_no_second_account() -> None:
    _, token = invited()
    client = opened(token, logged_in("maria", "viewer", environment="staging"))
    assert "logged in as <strong>maria</strong>" in text(client.get("/console/invitation/"))
    assert client.post("/console/invitation/").status_code == 302
    assert has_role(User.objects.get(username="maria"), "editor", "staging")
    assert User.objects.count() == 2


def test_a_role_already_held_is_not_granted_twice() -> None:
    _, token = invited()
    client = opened(token, logged_in("maria", "editor", environment="staging"))
    assert client.post("/console/invitation/").status_code == 302
    assert Membership.objects.filter(user__username="maria").count() == 1


# --- no longer valid ---------------------------------------------------------------------------------------


def test_it_expires(settings: Any) -> None:
    settings.CLOCK = "process"
    _, token = invited(lives=timedelta(days=1))
    client = opened(token)
    with time_machine.travel(timezone.now() + timedelta(hours=23, minutes=59)):
        assert client.get("/console/invitation/").status_code == 200
    with time_machine.travel(timezone.now() + timedelta(days=1, seconds=1)):
        assert client.get("/console/invitation/").status_code == 410
        assert client.post("/console/invitation/", FORM).status_code == 410


def test_it_ends_when_revoked() -> None:
    invitation, token = invited()
    actions.revoke_invitation(invitation.pk, actor=admin(), reason="sent to the wrong one")
    assert "revoked" in text(opened(token).get("/console/invitation/"))
    with pytest.raises(InvitationEnded):
        actions.revoke_invitation(invitation.pk, actor=admin(), reason="again")


@pytest.mark.parametrize("why", ["demoted", "deactivated"])
def test_it_grants_nothing_that_its_inviter_may_no_longer_grant(why: str) -> None:
    _, token = invited(admin("boss"))
    client = opened(token)
    if why == "demoted":
        Membership.objects.filter(user__username="boss").update(environment="production")
    else:
        User.objects.filter(username="boss").update(is_active=False)
    answer = client.post("/console/invitation/", FORM)
    assert answer.status_code == 410
    assert "boss, who invited you, may no longer give these roles" in text(answer)
    assert not User.objects.filter(username="nina").exists()


def test_an_unknown_token_opens_nothing() -> None:
    for token in ("x", "a" * 500, "%00", "..%2f"):
        client = Client()
        client.get(f"/console/invitation/{token}/")
        assert client.get("/console/invitation/").status_code == 410
    assert Client().get("/console/invitation/").status_code == 410


def test_the_token_leaves_the_url_immediately() -> None:
    _, token = invited()
    client = opened(token)
    assert token not in client.get("/console/invitation/").content.decode()
    assert token not in json.dumps(dict(client.session))


# --- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("username", "", "required"),
        ("username", "nína", "letters, digits"),
        ("username", "nina\u200b", "letters, digits"),
        ("username", "a" * 65, "at most 64"),
        ("username", "ROOT", "The name ROOT is taken"),
        ("password", "short", "too short"),
        ("password", "1234567890123", "numeric"),
        ("password", "nina", "too short"),
        ("again", "another word", "differ"),
        ("full_name", "Ni\u202ena", "invisible character"),
    ],
)
def test_a_bad_account_is_refused_next_to_its_field(field: str, value: str, said: str) -> None:
    _, token = invited()
    form = FORM | {field: value} | ({"again": value} if field == "password" else {})
    answer = opened(token).post("/console/invitation/", form)
    assert answer.status_code == 422
    assert said in text(answer)
    assert 'value="Nina N."' in text(answer) or field == "full_name"
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"roles": []},
        {"roles": [{"environment": "staging", "role": "king"}]},
        {"roles": [{"environment": "no such/place", "role": "editor"}]},
        {"teams": ["nobody"]},
        {"email": "not an address"},
        {"lives": timedelta(days=31)},
        {"lives": timedelta(0)},
        {"reason": " "},
    ],
    ids=str,
)
def test_a_bad_invitation_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        invited(**fields)
    assert not Invitation.objects.exists()


def test_it_requires_an_admin_of_each_environment() -> None:
    staging = admin("sam", "staging")
    assert invited(staging)[0].inviter_label == "sam"
    for roles in ([{"environment": "production", "role": "viewer"}], [{"environment": "", "role": "viewer"}]):
        with pytest.raises(RoleMissing):
            invited(staging, roles=[*EDITOR, *roles])
    Team.objects.create(name="support")
    with pytest.raises(RoleMissing):
        invited(staging, teams=["support"])
    refused = bodies("invitation.create")[1:]
    assert [body["outcome"] for body in refused] == ["refused"] * 3


def test_a_taken_name_is_refused_whatever_its_case() -> None:
    _, token = invited()
    User.objects.create_user("Nina")
    with pytest.raises(AlreadyExists):
        actions.accept_with_password(actions.token_hash(token), username="nina", password=PASSWORD)
    assert Invitation.objects.get().accepted_at is None


# --- the page of inviters, and the API ----------------------------------------------------------------------


def test_the_page_shows_the_link_once() -> None:
    builders.environment("staging")
    client = logged_in("root", "admin")
    page = client.get("/console/people/invite/")
    assert "In every environment" in text(page) and "In staging" in text(page)
    form = {"invited": "Nina", "roles_staging": ["editor"], "days": 3, "reason": "new"}
    made = client.post("/console/people/invite/", form)
    token = made.context["link"].rstrip("/").rsplit("/", 1)[1]
    assert Invitation.objects.get().roles == EDITOR
    opened(token).post("/console/invitation/", FORM)
    assert User.objects.filter(username="nina").exists()
    listed = client.get("/console/people/").content.decode()
    assert token not in listed


def test_the_page_names_missing_fields_and_keeps_the_input() -> None:
    client = logged_in("root", "admin")
    answer = client.post("/console/people/invite/", {"invited": "Nina", "days": 3, "reason": "new"})
    assert answer.status_code == 422
    assert "Select at least one role" in text(answer)
    assert 'value="Nina"' in answer.content.decode()


def test_the_page_revokes() -> None:
    invitation, _ = invited()
    client = logged_in("root", "admin")
    assert "Nina" in text(client.get("/console/people/"))
    address = f"/console/people/invitations/{invitation.pk}/revoke/"
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": "wrong one"}).status_code == 302
    assert Invitation.objects.get().revoked_at is not None
    assert "Nina" not in text(client.get("/console/people/"))


def test_it_requires_the_admin_role_to_list_or_revoke_them() -> None:
    invitation, _ = invited()
    client = logged_in("tom", "viewer", "operator")
    for path in ("people/", "people/invite/", f"people/invitations/{invitation.pk}/revoke/"):
        assert client.get(f"/console/{path}").status_code == 403
    call = Caller("viewer", "editor", "approver", "operator")
    assert call("GET", "invitations").json()["code"] == "role_missing"
    assert call("POST", "invitations", {"invited": "N", "roles": EDITOR, "reason": "x"}).status_code == 403
    assert call("POST", f"invitations/{invitation.pk}/revoke", {"reason": "x"}).status_code == 403


def test_an_admin_of_one_environment_sees_only_its_invitations() -> None:
    invited()
    invited(roles=[{"environment": "production", "role": "viewer"}])
    call = Caller("admin", environment="staging")
    assert [item["roles"] for item in call("GET", "invitations").json()["items"]] == [EDITOR]


def test_the_api_returns_the_link_once() -> None:
    call = Caller("admin")
    asked = {"invited": "Nina", "roles": EDITOR, "reason": "new", "days": 2}
    answer = call("POST", "invitations", asked, **{"Idempotency-Key": "one"})
    assert answer.status_code == 201
    token = answer.json()["link"].rstrip("/").rsplit("/", 1)[1]
    repeated = call("POST", "invitations", asked, **{"Idempotency-Key": "one"})
    assert (repeated.status_code, repeated.json()["link"]) == (201, None)
    (listed,) = call("GET", "invitations").json()["items"]
    assert "link" not in listed
    assert opened(token).post("/console/invitation/", FORM).status_code == 302
    ended = call("POST", f"invitations/{listed['id']}/revoke", {"reason": "late"})
    assert (ended.status_code, ended.json()["code"]) == (409, "invitation_ended")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"invited": "N", "roles": [], "reason": "x"},
        {"invited": "N", "roles": [{"role": "king"}], "reason": "x"},
        {"invited": "N", "roles": [{"role": "viewer", "environment": "a/b"}], "reason": "x"},
        {"invited": "N", "roles": [{"role": "viewer"}]},
        {"invited": "N", "roles": [{"role": "viewer"}], "reason": "x", "days": 31},
        {"invited": "\0", "roles": [{"role": "viewer"}], "reason": "x"},
        {"invited": "N", "roles": "viewer", "reason": "x"},
        {"invited": "N", "roles": [{"role": "viewer"}], "reason": "x", "email": "n"},
        {"invited": "N", "roles": [{"role": "viewer"}], "reason": "x", "teams": ["none"]},
    ],
    ids=str,
)
def test_a_bad_body_is_a_422(body: dict[str, Any]) -> None:
    answer = Caller("admin")("POST", "invitations", body)
    assert answer.status_code in (400, 422)
    assert not Invitation.objects.exists()


def test_a_key_cannot_grant_more_than_it_has() -> None:
    narrowed = Caller("admin", environment="staging")
    body = {"invited": "N", "roles": [{"role": "viewer", "environment": "production"}], "reason": "x"}
    assert narrowed("POST", "invitations", body).status_code == 403
    limited = Caller("admin", workloads=["one"])
    assert limited("POST", "invitations", body | {"roles": EDITOR}).json()["code"] == "key_limited"


def test_the_system_can_invite_the_first_people() -> None:
    _, token = actions.invite("Ann", actor=SYSTEM, roles=[{"role": "admin"}], reason="")
    user = actions.accept_with_password(actions.token_hash(token), username="ann", password=PASSWORD)
    assert has_role(user, "admin", "")


def test_a_refusal_is_a_pointsman_error() -> None:
    with pytest.raises(PointsmanError):
        actions.accept_with_password("no hash", username="nina", password=PASSWORD)


def test_a_link_that_nobody_made_leaves_nothing_in_the_database() -> None:
    """Anybody may open any number of them, and deactivating a person reads every session."""
    before = Session.objects.count()
    client = Client()
    assert client.get("/console/invitation/unknown/").status_code == 302
    assert "does not exist" in text(client.get("/console/invitation/"))
    assert Session.objects.count() == before


def test_a_link_that_nobody_made_replaces_the_one_before() -> None:
    _, token = invited()
    client = opened(token)
    client.get("/console/invitation/unknown/")
    assert client.get("/console/invitation/").status_code == 410
