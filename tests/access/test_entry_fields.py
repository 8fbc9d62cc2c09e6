"""The audit entries about roles, teams, keys, invitations and accounts: every field that they record."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User

from controlplane.access import actions, change_requests
from controlplane.access.models import Membership
from controlplane.audit import chain
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Forbidden
from tests.support import builders

pytestmark = pytest.mark.django_db
EDITOR = [{"environment": "staging", "role": "editor"}]


def entry(action: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bytes(Entry.objects.filter(action=action).latest("seq").body))
    return body


def assert_recorded(
    action: str,
    target: tuple[str, str],
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    **more: Any,
) -> None:
    """The newest entry of the action has exactly these states, this target and these further members."""
    body = entry(action)
    assert body["diff"] == chain.plain(chain.difference(before or {}, after or {}))
    known = [None if state is None else chain.digest(chain.plain(state)) for state in (before, after)]
    assert [body["before_sha256"], body["after_sha256"]] == known
    assert (body["target"], body["outcome"]) == ({"kind": target[0], "id": target[1]}, "done")
    assert {name: body[name] for name in more} == more


def test_entries_about_roles() -> None:
    ann = User.objects.create_user("ann")
    target, role = ("user", str(ann.pk)), {"user": "ann", "role": "editor", "environment": "staging"}
    held = actions.grant_role(ann, "editor", "staging", actor=SYSTEM, reason="writes policies")
    assert_recorded("membership.grant", target, None, role, reason="writes policies", environment="staging")
    actions.withdraw_role(held, actor=SYSTEM, reason="moved on")
    assert_recorded("membership.withdraw", target, role, None, reason="moved on", environment="staging")


def test_entries_about_teams() -> None:
    ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
    team = actions.create_team("support", members=[bob, ann], actor=SYSTEM, reason="new")
    both, target = {"name": "support", "members": ["ann", "bob"]}, ("team", "support")
    assert_recorded("team.create", target, None, both, reason="new")
    actions.set_team_members(team, [bob], actor=SYSTEM, reason="she moved")
    only = {"name": "support", "members": ["bob"]}
    assert_recorded("team.set_members", target, both, only, reason="she moved")
    actions.set_team_members(team, [bob], actor=SYSTEM, reason="again")
    assert Entry.objects.filter(action="team.set_members").count() == 1, "nothing changed"
    _, token = actions.invite("Nina", roles=EDITOR, teams=["support"], actor=SYSTEM, reason="new")
    actions.accept_as(actions.token_hash(token), ann)
    assert_recorded("team.join", target, only, both)


def test_entries_about_keys() -> None:
    key, _ = actions.issue_key(
        "router", "production", "a router", workloads=["b", "a"], actor=SYSTEM, reason="new"
    )
    fields = {
        "kind": "router", "label": "a router", "environment": "production", "scopes": [], "workloads": ["a", "b"],
        "user_id": None, "expires_at": None, "revoked_at": None,
        "fingerprint": actions.key_fields(key)["fingerprint"],
    }  # fmt: skip
    place = {"environment": "production"}
    assert_recorded("key.issue", ("key", key.key_id), None, fields, reason="new", **place)
    successor, _ = actions.rotate_key(key.key_id, actor=SYSTEM, reason="as planned")
    key.refresh_from_db()
    following = {
        "key_id": successor.key_id,
        **fields,
        "fingerprint": actions.key_fields(successor)["fingerprint"],
    }
    rotated = {**fields, "expires_at": key.expires_at}
    assert_recorded(
        "key.rotate",
        ("key", key.key_id),
        fields,
        rotated | {"successor": following},
        reason="as planned",
        **place,
    )
    ended = actions.revoke_key(key.key_id, actor=SYSTEM, reason="lost")
    assert ended.revoked_at is not None
    revoked = {**rotated, "revoked_at": ended.revoked_at}
    assert_recorded("key.revoke", ("key", key.key_id), rotated, revoked, reason="lost", **place)


def test_entries_about_invitations() -> None:
    root, ann = User.objects.create_superuser("root"), User.objects.create_user("ann")
    actor = Actor.of_user(root)
    made, token = actions.invite("Nina", roles=EDITOR, email="n@example.com", actor=actor, reason="new")
    fields = {
        "invited": "Nina", "email": "n@example.com", "roles": EDITOR, "teams": [], "expires_at": made.expires_at,
        "revoked_at": None, "accepted_at": None, "accepted_by_id": None, "inviter_id": root.pk, "inviter_key": "",
        "fingerprint": actions.invitation_fields(made)["fingerprint"],
    }  # fmt: skip
    target = ("invitation", str(made.pk))
    assert_recorded("invitation.create", target, None, fields, reason="new")
    actions.accept_as(actions.token_hash(token), ann)
    made.refresh_from_db()
    accepted = {**fields, "accepted_at": made.accepted_at, "accepted_by_id": ann.pk}
    assert_recorded("invitation.accept", target, fields, accepted)
    other, _ = actions.invite("Nina", roles=EDITOR, actor=actor, reason="new", lives=timedelta(days=1))
    before = actions.invitation_fields(other)
    ended = actions.revoke_invitation(other.pk, actor=actor, reason="wrong one")
    after = {**before, "revoked_at": ended.revoked_at}
    assert_recorded("invitation.revoke", ("invitation", str(other.pk)), before, after, reason="wrong one")


def test_entries_about_accounts() -> None:
    actions.grant_role(User.objects.create_user("root"), "admin", "", actor=SYSTEM)
    ann = actions.create_person(
        "ann", password="a long enough word", actor=SYSTEM, reason="new", superuser=True
    )
    fields = {
        "username": "ann", "first_name": "", "last_name": "", "email": "", "is_active": True, "is_staff": True,
        "is_superuser": True, "password": actions.person_fields(ann)["password"], "second_factors": [],
        "providers": [],
    }  # fmt: skip
    target = ("user", str(ann.pk))
    assert_recorded("user.create", target, None, fields, reason="new")
    TOTP.activate(ann, "JBSWY3DPEHPK3PXP")
    SocialAccount.objects.create(user=ann, provider="company", uid="7")
    said = actions.person_fields(ann)
    assert said["providers"] == ["company 7"]
    assert [factor.split()[0] for factor in said["second_factors"]] == ["totp"]
    before = fields | {"second_factors": said["second_factors"], "providers": ["company 7"]}
    changes: list[tuple[Any, str, dict[str, Any]]] = [
        (actions.remove_second_factor, "second_factor.remove", {"second_factors": []}),
        (actions.withdraw_superuser, "user.withdraw_superuser", {"is_superuser": False}),
        (actions.end_sessions, "user.end_sessions", {}),
        (actions.deactivate_person, "user.deactivate", {"is_active": False}),
        (actions.activate_person, "user.activate", {"is_active": True}),
    ]
    for change, action, changed in changes:
        change(ann, actor=SYSTEM, reason=f"because of {action}")
        assert_recorded(action, target, before, before | changed, reason=f"because of {action}")
        before |= changed
    actions.change_password(ann, "another long word", actor=SYSTEM, reason="forgotten")
    after = before | {"password": actions.person_fields(ann)["password"]}
    assert after["password"] != before["password"]
    assert_recorded("password.change", target, before, after, reason="forgotten")


@pytest.mark.parametrize("end", ["reject", "withdraw"])
def test_entries_about_requests(end: str) -> None:
    builders.environment("production")
    ann = Actor.of_user(User.objects.create_user("ann"))
    asked = change_requests.ask(
        "environment.four_eyes_off",
        called="Switching four eyes off in production",
        environment="production",
        workload="support",
        subject={"four_eyes": False},
        contributors=[],
        actor=ann,
        reason="alone",
    )
    fields = {
        "action": "environment.four_eyes_off", "environment": "production", "workload": "support",
        "subject": {"four_eyes": False}, "reason": "alone", "requested_by": "ann", "contributors": [ann.id],
        "approvals": [], "state": "waiting", "ended_by": "",
    }  # fmt: skip
    target = ("change_request", str(asked.pk))
    place = {"environment": "production", "workload": "support"}
    assert_recorded("change.request", target, None, fields, reason="alone", **place)
    done = {"reject": change_requests.reject, "withdraw": change_requests.withdraw}[end](
        asked, actor=ann, reason="no"
    )
    ended = {**fields, "state": done.state, "ended_by": "ann"}
    assert done.state in ("rejected", "withdrawn") and done.ended_at is not None
    assert_recorded(f"change.{end}", target, fields, ended, reason="no", **place)


def test_an_approval_is_recorded_with_its_person_and_its_time() -> None:
    """A request by a key without a person needs two approvals; only the first has an entry here."""
    asked = builders.request_that_needs_two()
    before = change_requests.request_fields(asked)
    people = [Actor.of_user(User.objects.create_user(name)) for name in ("eva", "ben")]
    for person in people:
        Membership.objects.create(user_id=int(person.id), role="approver", environment="production")
    binding = change_requests.binding(asked)
    assert not change_requests.agree(asked, actor=people[0], reason="fine", expected_binding=binding)
    asked.refresh_from_db()
    (given,) = asked.approvals
    assert given | {"at": ""} == {"user_id": people[0].id, "label": "eva", "reason": "fine", "at": ""}
    assert datetime.fromisoformat(given["at"]).tzinfo is not None
    after = before | {"approvals": [given]}
    evidence = {"counted": 1, "needed": 2}
    assert_recorded(
        "change.approve", ("change_request", str(asked.pk)), before, after, reason="fine", evidence=evidence
    )
    assert change_requests.agree(asked, actor=people[1], reason="yes", expected_binding=binding)
    asked.refresh_from_db()
    assert [approval["label"] for approval in asked.approvals] == ["eva", "ben"]
    assert (asked.state, asked.ended_by) == ("applied", "ben") and asked.ended_at is not None


def test_a_refusal_names_the_person_whose_account_it_is_about() -> None:
    ann, sam = User.objects.create_user("ann"), Actor.of_user(User.objects.create_user("sam"))
    with pytest.raises(Forbidden):
        actions.end_sessions(ann, actor=sam, reason="x")
    body = entry("user.end_sessions")
    assert (body["outcome"], body["target"]) == ("refused", {"kind": "user", "id": str(ann.pk)})
