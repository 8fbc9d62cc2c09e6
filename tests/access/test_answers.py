"""The API for keys, roles, teams, people and invitations: the fields of each response, and the limits of each field.

The clients and the API document rely on the names of the fields.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils.dateparse import parse_datetime
from rest_framework import serializers

from controlplane.access import actions
from controlplane.access.api import (
    KeyInput,
    KeySerializer,
    MembershipSerializer,
    NewKeySerializer,
    NewMembershipSerializer,
    RevokeInput,
    RotateInput,
    TeamSerializer,
)
from controlplane.access.models import Key
from controlplane.access.people_api import (
    HeldRoleSerializer,
    InvitationInput,
    InvitationSerializer,
    NeededReasonInput,
    NewInvitationSerializer,
    PersonSerializer,
)
from controlplane.core.actors import SYSTEM
from tests.support import builders
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db
KEY = [
    "key_id", "kind", "environment", "label", "scopes", "workloads", "user", "created_at", "expires_at",
    "revoked_at", "last_used_at",
]  # fmt: skip
INVITATION = [
    "id", "invited", "email", "roles", "teams", "inviter", "created_at", "expires_at", "revoked_at",
    "accepted_at", "accepted_by",
]  # fmt: skip
PERSON = [
    "id", "username", "name", "email", "active", "superuser", "second_factor", "last_login", "roles", "teams",
]  # fmt: skip
MEMBERSHIP = ["id", "user", "environment", "role"]
SCRIPT = {"kind": "admin", "label": "a script", "scopes": ["viewer"]}
GRANTED = {"user": "ann", "environment": "", "role": "viewer", "reason": "new"}
NINA = {"invited": "Nina", "roles": [{"role": "viewer"}], "reason": "new"}
Serializer = type[serializers.BaseSerializer[Any]]
ANSWERS: dict[str, tuple[str, str, Any, Serializer, list[str]]] = {
    "keys": ("GET", "keys", None, KeySerializer, KEY),
    "new key": ("POST", "keys", SCRIPT, NewKeySerializer, [*KEY, "key"]),
    "rotated key": ("POST", "keys/{key}/rotate", {}, NewKeySerializer, [*KEY, "key"]),
    "revoked key": ("POST", "keys/{key}/revoke", {"reason": "lost"}, KeySerializer, KEY),
    "roles": ("GET", "memberships", None, MembershipSerializer, MEMBERSHIP),
    "granted role": ("POST", "memberships", GRANTED, MembershipSerializer, MEMBERSHIP),
    "teams": ("GET", "teams", None, TeamSerializer, ["name", "members"]),
    "new team": ("POST", "teams", {"name": "sales", "members": ["ann"]}, TeamSerializer, ["name", "members"]),
    "changed team": ("PUT", "teams/support", {"members": []}, TeamSerializer, ["name", "members"]),
    "people": ("GET", "people", None, PersonSerializer, PERSON),
    "person": ("GET", "people/{ann}", None, PersonSerializer, PERSON),
    "changed person": ("POST", "people/{ann}/end-sessions", {"reason": "left"}, PersonSerializer, PERSON),
    "invitations": ("GET", "invitations", None, InvitationSerializer, INVITATION),
    "new invitation": ("POST", "invitations", NINA, NewInvitationSerializer, [*INVITATION, "link"]),
}
READ_ONLY = [name for name, row in ANSWERS.items() if row[3] not in (MembershipSerializer, TeamSerializer)]


def answered(name: str) -> dict[str, Any]:
    """One key, person, role, team and invitation exist. Return one of them as the API shows it."""
    method, path, body, *_ = ANSWERS[name]
    ann, call = User.objects.create_user("ann", email="ann@example.com"), Caller("admin")
    actions.grant_role(ann, "editor", "", actor=SYSTEM)
    actions.create_team("support", members=[ann], actor=SYSTEM)
    key, _ = actions.issue_key("router", "production", "a router", actor=SYSTEM)
    actions.invite("Nina", roles=[{"role": "viewer"}], teams=["support"], reason="new", actor=SYSTEM)
    answer = call(method, path.format(key=key.key_id, ann=ann.pk), body)
    assert answer.status_code in (200, 201), answer.content
    found: dict[str, Any] = answer.json()
    return dict(found["items"][0]) if "items" in found else found


@pytest.mark.parametrize("name", ANSWERS)
def test_a_response_has_exactly_the_documented_fields(name: str) -> None:
    *_, serializer, fields = ANSWERS[name]
    assert list(answered(name)) == fields
    documented: Any = serializer().fields  # type: ignore[attr-defined]  # of a Serializer
    assert [field for field, of in documented.items() if not of.write_only] == fields


@pytest.mark.parametrize("name", READ_ONLY)
def test_no_field_of_a_read_only_resource_can_be_set(name: str) -> None:
    shown = ANSWERS[name][3](data=answered(name))
    assert shown.is_valid(), shown.errors
    assert shown.validated_data == {}


def test_values_of_a_key() -> None:
    builders.environment("staging")
    ann = User.objects.create_user("ann")
    actions.grant_role(ann, "admin", "", actor=SYSTEM)
    body = SCRIPT | {"environment": "staging", "expires_at": "2099-01-01T00:00:00Z"}
    made = Caller("admin", "viewer", user=ann)("POST", "keys", body).json()
    assert made | {"key_id": "", "created_at": "", "key": ""} == {
        "key_id": "", "kind": "admin", "environment": "staging", "label": "a script", "scopes": ["viewer"],
        "workloads": [], "user": "ann", "created_at": "", "expires_at": "2099-01-01T00:00:00Z",
        "revoked_at": None, "last_used_at": None, "key": "",
    }  # fmt: skip
    assert made["key"].startswith(f"pma_staging_{made['key_id']}_")


def test_only_an_admin_key_acts_for_the_person_who_creates_it() -> None:
    builders.environment("staging")
    ann = User.objects.create_user("ann")
    actions.grant_role(ann, "admin", "", actor=SYSTEM)
    call, nobodys = Caller("admin", "viewer", user=ann), Caller("admin", "viewer")
    router = {"kind": "router", "environment": "staging", "label": "a router"}
    assert call("POST", "keys", router).json()["user"] is None
    assert call("POST", "keys", SCRIPT).json()["user"] == "ann"
    assert nobodys("POST", "keys", SCRIPT).json()["user"] is None


def test_values_of_a_person_and_their_roles() -> None:
    found = answered("person")
    assert found["roles"] == [{"id": found["roles"][0]["id"], "environment": "", "role": "editor"}]
    assert list(HeldRoleSerializer().fields) == ["id", "environment", "role"]
    assert (found["email"], found["teams"], found["superuser"]) == ("ann@example.com", ["support"], False)


def test_values_of_an_invitation() -> None:
    found = answered("invitations")
    assert (found["invited"], found["inviter"], found["email"], found["teams"]) == (
        "Nina", "Pointsman", "", ["support"],
    )  # fmt: skip
    assert found["roles"] == [{"environment": "", "role": "viewer"}]
    assert found["revoked_at"] is found["accepted_at"] is found["accepted_by"] is None


# --- limits and defaults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("hours", "status"), [(-1, 422), (0, 201), (1, 201), (168, 201), (169, 422)])
def test_the_overlap_of_a_rotation_has_limits(hours: int, status: int) -> None:
    key, _ = actions.issue_key("router", "production", "a router", actor=SYSTEM)
    answer = Caller("admin")("POST", f"keys/{key.key_id}/rotate", {"overlap_hours": hours})
    assert answer.status_code == status
    assert (answer.json().get("problems", [{}])[0].get("path") == "overlap_hours") is (status == 422)


def test_a_rotated_key_stays_valid_for_a_day_unless_stated_otherwise() -> None:
    key, _ = actions.issue_key("router", "production", "a router", actor=SYSTEM)
    made = Caller("admin")("POST", f"keys/{key.key_id}/rotate", {}).json()
    old = Key.objects.get(pk=key.pk)
    begun = parse_datetime(made["created_at"])
    assert old.expires_at is not None and begun is not None
    assert abs(old.expires_at - begun - timedelta(hours=24)) < timedelta(minutes=5)


@pytest.mark.parametrize(("days", "status"), [(0, 422), (1, 201), (30, 201), (31, 422), (None, 201)])
def test_the_days_of_an_invitation_have_limits(days: int | None, status: int) -> None:
    answer = Caller("admin")("POST", "invitations", NINA | ({} if days is None else {"days": days}))
    assert answer.status_code == status
    if status == 201:
        found = answer.json()
        begun, ends = parse_datetime(found["created_at"]), parse_datetime(found["expires_at"])
        assert begun is not None and ends is not None
        assert ends - begun == timedelta(days=3 if days is None else days)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("keys", SCRIPT | {"environment": "", "expires_at": None, "workloads": [], "reason": ""}),
        (
            "memberships",
            {"user": "ann", "role": "viewer", "environment": "", "reason": "x", "break_glass": False},
        ),
        ("memberships", {"user": "ann", "role": "viewer", "reason": "x"}),
        ("invitations", NINA | {"email": "", "teams": [], "roles": [{"environment": "", "role": "viewer"}]}),
        ("teams", {"name": "sales", "members": [], "reason": ""}),
    ],
    ids=str,
)
def test_an_optional_field_may_be_empty(path: str, body: dict[str, Any]) -> None:
    User.objects.create_user("ann")
    assert Caller("admin")("POST", path, body).status_code == 201


# Path, a valid body, its serializer, and the fields that cannot be left out.
INPUTS: list[tuple[str, dict[str, Any], Serializer, set[str]]] = [
    ("keys", SCRIPT, KeyInput, {"kind", "label"}),
    ("keys/{key}/revoke", {"reason": "lost"}, RevokeInput, {"reason"}),
    ("keys/{key}/rotate", {}, RotateInput, set()),
    ("memberships", GRANTED, NewMembershipSerializer, {"user", "role"}),
    ("teams", {"name": "sales", "members": []}, TeamSerializer, {"name", "members"}),
    ("invitations", NINA, InvitationInput, {"invited", "roles", "reason"}),
    ("people/{ann}/end-sessions", {"reason": "left"}, NeededReasonInput, {"reason"}),
]


@pytest.mark.parametrize(
    ("path", "body", "serializer", "required"), INPUTS, ids=[path for path, *_ in INPUTS]
)
def test_each_missing_field_is_named_and_documented(
    path: str, body: dict[str, Any], serializer: Serializer, required: set[str]
) -> None:
    ann, call = User.objects.create_user("ann"), Caller("admin")
    key, _ = actions.issue_key("router", "production", "a router", actor=SYSTEM)
    address = path.format(key=key.key_id, ann=ann.pk)
    for missing in required:
        answer = call("POST", address, {name: value for name, value in body.items() if name != missing})
        assert answer.status_code == 422
        assert [problem["path"] for problem in answer.json()["problems"]] == [missing]
    assert call("POST", address, body).status_code < 300
    fields: Any = serializer().fields  # type: ignore[attr-defined]  # of a Serializer
    assert {name for name, field in fields.items() if field.required} == required
