"""The admin API's base classes, tested over HTTP: authentication, parsing, idempotency."""

import json
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from controlplane.access import actions
from controlplane.access.models import Answer, Key, Membership, Role, Team
from controlplane.audit.models import Entry
from controlplane.core import strictjson
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import BodyTooLarge, MalformedBody
from tests.support import builders
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def call() -> Caller:
    return Caller()


def is_problem(response: Any, status: int, code: str) -> bool:
    assert response["Content-Type"] == "application/problem+json", response.content
    found = response.json()
    assert (response.status_code, found["status"], found["code"]) == (status, status, code), found
    return bool(found["title"] and found["detail"] and found["type"] == f"urn:pointsman:problem:{code}")


# --- authentication ---------------------------------------------------------------------------------


def test_it_requires_authentication(client: Client) -> None:
    response = client.get("/api/v1/keys")
    assert is_problem(response, 401, "unauthenticated")
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header", ["Basic eDp5", "Bearer", "Bearer x", "Bearer pma__aaaaaaaaaaaa_" + "a" * 49]
)
def test_it_refuses_a_malformed_key(client: Client, header: str) -> None:
    assert is_problem(client.get("/api/v1/keys", headers={"Authorization": header}), 401, "unauthenticated")


def test_it_refuses_a_router_key(client: Client) -> None:
    _, text = actions.issue_key("router", "production", "r", actor=SYSTEM)
    response = client.get("/api/v1/keys", headers={"Authorization": f"Bearer {text}"})
    assert is_problem(response, 403, "wrong_key_kind")


def test_it_refuses_a_revoked_key(call: Caller) -> None:
    actions.revoke_key(call.key.key_id, actor=SYSTEM, reason="lost")
    assert is_problem(call("GET", "keys"), 401, "key_revoked")


def test_it_refuses_the_key_of_a_deactivated_person() -> None:
    ann = User.objects.create_superuser("ann")
    call = Caller(user=ann)
    assert call("GET", "keys").status_code == 200
    User.objects.update(is_active=False)
    assert is_problem(call("GET", "keys"), 401, "key_revoked")


def test_it_notes_when_a_key_was_used(call: Caller) -> None:
    call("GET", "keys")
    assert Key.objects.get(pk=call.key.pk).last_used_at is not None


def test_a_session_gets_in_and_writes_only_with_a_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert client.get("/api/v1/teams").status_code == 200
    response = client.post("/api/v1/teams", {"name": "t", "members": []}, content_type="application/json")
    assert is_problem(response, 403, "forbidden")


def test_it_requires_a_role_to_see_anything(client: Client) -> None:
    client.force_login(User.objects.create_user("nobody"))
    assert is_problem(client.get("/api/v1/teams"), 403, "role_missing")


@pytest.mark.parametrize("path", ["memberships"])
def test_it_requires_the_admin_role(path: str) -> None:
    call = Caller("viewer", "editor", "approver", "operator")
    assert is_problem(call("GET", path), 403, "role_missing")


def test_a_key_of_one_environment_manages_no_other() -> None:
    call, other = Caller("admin", environment="staging"), Caller("admin", environment="production")
    assert [item["key_id"] for item in call("GET", "keys").json()["items"]] == [call.key.key_id]
    revoke = call("POST", f"keys/{other.key.key_id}/revoke", {"reason": "mine now"})
    assert is_problem(revoke, 404, "not_found")
    issue = call("POST", "keys", {"kind": "router", "environment": "production", "label": "r"})
    assert is_problem(issue, 403, "role_missing")


# --- parsing ----------------------------------------------------------------------------------------

BAD_BODIES = [
    (b"{", "malformed_body"),
    (b"[]", "malformed_body"),
    (b'"text"', "malformed_body"),
    (b"\xff\xfe", "malformed_body"),
    (b'{"a": 1, "a": 2}', "duplicate_key"),
    (b'{"a": {"b": 1, "\\u0062": 2}}', "duplicate_key"),
    (b'{"a": "\\u0000"}', "malformed_body"),
    (b'{"a\\u0000": 1}', "malformed_body"),
    (b'{"a": "\\ud800"}', "malformed_body"),
    (b'{"a": NaN}', "malformed_body"),
    (b'{"a": -Infinity}', "malformed_body"),
    (b'{"a": 1e999}', "malformed_body"),
    (b'{"a": ' + b"1" * 5000 + b"}", "malformed_body"),
    (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "malformed_body"),
    (b'{"a": [' + b"0," * 20_000 + b"0]}", "malformed_body"),
    (b'{"a": 1} {}', "malformed_body"),
]


@pytest.mark.parametrize(("body", "code"), BAD_BODIES, ids=[repr(body[:24]) for body, _ in BAD_BODIES])
def test_it_refuses_a_body_that_two_readers_could_read_differently(
    call: Caller, body: bytes, code: str
) -> None:
    assert is_problem(call("POST", "teams", body), 400, code)
    assert not Team.objects.exists()


def test_it_refuses_a_body_over_256_kb(call: Caller) -> None:
    fits = b'{"name": "t", "members": []' + b" " * (strictjson.MAX_BYTES - 28) + b"}"
    assert len(fits) == strictjson.MAX_BYTES
    assert call("POST", "teams", fits).status_code == 201
    assert is_problem(call("POST", "teams", fits + b" "), 413, "body_too_large")


def test_depth_and_node_limits_are_exact() -> None:
    assert strictjson.loads(b"[" * 32 + b"]" * 32)
    with pytest.raises(MalformedBody, match="deep"):
        strictjson.loads(b"[" * 33 + b"]" * 33)
    assert len(strictjson.loads(b"[" + b"0," * 19_997 + b"0]")) == 19_998
    with pytest.raises(MalformedBody, match="values"):
        strictjson.loads(b"[" + b"0," * 20_000 + b"0]")
    with pytest.raises(BodyTooLarge):
        strictjson.loads(b" " * (strictjson.MAX_BYTES + 1))


def test_brackets_and_quotes_in_a_string_do_not_count() -> None:
    assert strictjson.loads(b'["' + b'[{,\\"' * 20_000 + b'"]')


@pytest.mark.timeout(60)  # if it were quadratic, it would take minutes
@pytest.mark.parametrize("body", [b'"' + b'\\"' * 100_000, b'"' + b'\\"' * 100_000 + b"\\", b'"' * 200_001])
def test_a_hostile_body_is_refused_at_once(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        strictjson.loads(body)


def test_it_names_every_field_that_is_wrong(call: Caller) -> None:
    response = call("POST", "keys", {"kind": "other", "scopes": ["viewer", "root"], "label": "x"})
    assert is_problem(response, 422, "invalid_input")
    assert {problem["path"] for problem in response.json()["problems"]} == {"kind", "scopes/1"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "nowhere", 404, "not_found"),
        ("DELETE", "keys", 405, "method_not_allowed"),
        ("GET", "audit/99", 404, "not_found"),
        ("GET", "audit?cursor=zzz", 404, "not_found"),
        ("GET", "audit?actor_id=%00", 400, "malformed_address"),
        ("GET", "models/a%00b", 400, "malformed_address"),
        ("GET", "audit/99999999999999999999999", 404, "not_found"),
        ("DELETE", "memberships/9", 404, "not_found"),
        ("DELETE", "memberships/99999999999999999999", 404, "not_found"),
    ],
)
def test_it_answers_an_unknown_url_with_a_problem(
    call: Caller, method: str, path: str, status: int, code: str
) -> None:
    assert is_problem(call(method, path), status, code)


def test_it_reads_json_only(call: Caller) -> None:
    response = call.client.post(
        "/api/v1/teams", {"name": "x"}, headers={"Authorization": f"Bearer {call.text}"}
    )
    assert is_problem(response, 415, "unsupported_media_type")


# --- idempotency ------------------------------------------------------------------------------------


def test_the_same_request_again_gets_the_first_answer(call: Caller) -> None:
    body = {"name": "support", "members": []}
    first = call("POST", "teams", body, **{"Idempotency-Key": "k-1"})
    spaced = json.dumps(body, indent=3).encode()
    second = call("POST", "teams", spaced, **{"Idempotency-Key": "k-1"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second["Idempotency-Replayed"] == "true"
    assert Entry.objects.filter(action="team.create").count() == 1


def test_another_request_with_the_same_key_is_refused(call: Caller) -> None:
    call("POST", "teams", {"name": "one", "members": []}, **{"Idempotency-Key": "k-1"})
    for path, body in (
        ("teams", {"name": "two", "members": []}),
        ("memberships", {"name": "one", "members": []}),
    ):
        response = call("POST", path, body, **{"Idempotency-Key": "k-1"})
        assert is_problem(response, 422, "idempotency_mismatch")
    assert Team.objects.count() == 1


def test_two_callers_may_use_the_same_key(call: Caller) -> None:
    other = Caller()
    assert (
        call("POST", "teams", {"name": "one", "members": []}, **{"Idempotency-Key": "k"}).status_code == 201
    )
    assert (
        other("POST", "teams", {"name": "two", "members": []}, **{"Idempotency-Key": "k"}).status_code == 201
    )


def test_a_refused_request_may_be_tried_again_with_its_key(call: Caller) -> None:
    body = {"user": "ann", "role": "editor", "environment": "staging", "reason": "new here"}
    assert is_problem(call("POST", "memberships", body, **{"Idempotency-Key": "k"}), 422, "invalid_input")
    assert not Answer.objects.exists()
    User.objects.create_user("ann")
    assert call("POST", "memberships", body, **{"Idempotency-Key": "k"}).status_code == 201


def test_a_secret_is_shown_once_and_not_stored(call: Caller) -> None:
    builders.environment("production")
    body = {"kind": "router", "environment": "production", "label": "r"}
    first = call("POST", "keys", body, **{"Idempotency-Key": "k"})
    second = call("POST", "keys", body, **{"Idempotency-Key": "k"})
    assert first.json()["key"].startswith("pmr_production_")
    assert second.json() == first.json() | {"key": None}
    assert Key.objects.filter(kind="router").count() == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_bad_idempotency_key_is_refused(call: Caller, key: str) -> None:
    response = call("POST", "teams", {"name": "one", "members": []}, **{"Idempotency-Key": key})
    assert is_problem(response, 422, "invalid_input")


# --- endpoints --------------------------------------------------------------------------------------


def test_a_key_is_issued_rotated_and_revoked(call: Caller) -> None:
    builders.environment("production")
    made = call("POST", "keys", {"kind": "router", "environment": "production", "label": "r"}).json()
    rotated = call("POST", f"keys/{made['key_id']}/rotate", {"overlap_hours": 1})
    assert rotated.status_code == 201
    assert rotated.json()["key"] != made["key"]
    revoked = call("POST", f"keys/{made['key_id']}/revoke", {"reason": "old"})
    assert revoked.json()["revoked_at"] is not None
    assert "key" not in call("GET", "keys").json()["items"][0]


def test_an_admin_key_acts_for_its_creator(client: Client) -> None:
    root = User.objects.create_superuser("root")
    client.force_login(root)
    body = {"kind": "admin", "label": "mine", "scopes": ["approver"]}
    made = client.post("/api/v1/keys", body, content_type="application/json").json()
    assert made["user"] == "root"
    assert Key.objects.get(key_id=made["key_id"]).user == root


def test_a_role_is_granted_once_and_withdrawn(call: Caller) -> None:
    User.objects.create_user("ann")
    body = {"user": "ann", "role": "editor", "environment": "staging", "reason": "new here"}
    made = call("POST", "memberships", body)
    assert (made.status_code, made.json()["role"]) == (201, Role.EDITOR)
    assert is_problem(call("POST", "memberships", body), 409, "already_exists")
    assert call("DELETE", f"memberships/{made.json()['id']}").status_code == 204
    assert not Membership.objects.exists()


def test_a_team_is_created_once_and_its_members_are_set(call: Caller) -> None:
    User.objects.create_user("ann")
    assert call("POST", "teams", {"name": "support", "members": ["ann"]}).json()["members"] == ["ann"]
    assert is_problem(call("POST", "teams", {"name": "support", "members": []}), 409, "already_exists")
    assert call("PUT", "teams/support", {"members": []}).json() == {"name": "support", "members": []}
    assert is_problem(call("PUT", "teams/support", {"members": ["bob"]}), 422, "invalid_input")


def test_the_audit_log_is_paginated_and_filtered(call: Caller) -> None:
    for name in ("one", "two", "three"):
        call("POST", "teams", {"name": name, "members": []}, **{"X-Request-ID": f"r-{name}"})
    page = call("GET", "audit?action=team.create&limit=2").json()
    assert [item["target"]["id"] for item in page["items"]] == ["three", "two"]
    assert page["items"][0]["request_id"] == "r-three"
    assert page["items"][0]["source"] == "api 127.0.0.1"
    rest = call("GET", page["next"].split("/api/v1/")[1]).json()
    assert [item["target"]["id"] for item in rest["items"]] == ["one"]
    assert rest["next"] is None
    entry = page["items"][0]
    assert call("GET", f"audit/{entry['seq']}").json() == entry


def test_the_audit_log_shows_only_visible_environments() -> None:
    call = Caller("viewer", environment="staging")
    actions.issue_key("router", "production", "r", actor=SYSTEM)
    actions.issue_key("router", "staging", "r", actor=SYSTEM)
    items = call("GET", "audit?action=key.issue").json()["items"]
    assert {item["environment"] for item in items} == {"staging"}


def test_the_schema_describes_every_endpoint(client: Client) -> None:
    errors = StringIO()
    with redirect_stderr(errors):
        call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())
    assert errors.getvalue() == ""
    paths = client.get("/api/v1/schema").json()["paths"]
    assert {"/api/v1/audit/{seq}", "/api/v1/keys", "/api/v1/memberships", "/api/v1/teams"} <= set(paths)


def test_every_integer_of_a_request_has_a_maximum(client: Client) -> None:
    """Regression: an integer of 2**63 or more does not fit the database, and a query with one caused a 500."""
    document = client.get("/api/v1/schema").json()
    unbounded = []

    def walk(schema: Any, place: str, seen: tuple[str, ...] = ()) -> None:
        if isinstance(schema, list):
            for part in schema:
                walk(part, place, seen)
        if not isinstance(schema, dict) or schema.get("readOnly"):
            return
        if (ref := schema.get("$ref")) and ref not in seen:
            walk(document["components"]["schemas"][ref.rpartition("/")[2]], place, (*seen, ref))
        if schema.get("type") == "integer" and not (
            "maximum" in schema or "enum" in schema or "const" in schema
        ):
            unbounded.append(place)
        for name, part in schema.get("properties", {}).items():
            walk(part, f"{place}.{name}", seen)
        for name in ("items", "additionalProperties", "oneOf", "anyOf", "allOf"):
            walk(schema.get(name), place, seen)

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                walk(media["schema"], f"{method} {path}")
    assert sorted(set(unbounded)) == []


def test_every_answer_carries_its_request_id(call: Caller) -> None:
    assert call("GET", "teams", **{"X-Request-ID": "abc-1"})["X-Request-ID"] == "abc-1"
    forged = call("GET", "teams", **{"X-Request-ID": "a b{}"})["X-Request-ID"]
    assert forged != "a b{}"
    assert len(forged) == 36
