"""What actions on keys, roles, teams and invitations refuse: each problem with the path of its field."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db.models import QuerySet

from controlplane.access import actions
from controlplane.access.models import Invitation, Key, Membership, Team
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    InvitationEnded,
    NotFound,
)
from tests.support.callers import Caller
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
ROUTER: dict[str, Any] = {"kind": "router", "environment": "production", "label": "a router"}
SCRIPT: dict[str, Any] = {"kind": "admin", "environment": "", "label": "a script", "scopes": ["viewer"]}
SCOPES = "one or more of viewer, editor, approver, operator, admin, agent"
EDITOR = [{"environment": "staging", "role": "editor"}]
NOBODY = UUID("01890000-0000-7000-8000-000000000000")


def problems_of(refused: Callable[[], Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        refused()
    return [(problem["path"], problem["message"]) for problem in caught.value.extra["problems"]]


def assert_named(found: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    """Each problem is at its field, and its message has the words that help."""
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (_, message), (_, words) in zip(found, expected, strict=True):
        assert words in message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (ROUTER | {"kind": "other"}, [("kind", "router or admin")]),
        (ROUTER | {"label": " "}, [("label", "1 to 120 characters")]),
        (ROUTER | {"label": "x" * 121}, [("label", "1 to 120 characters")]),
        (ROUTER | {"label": "a\u202eb"}, [("label", "invisible character")]),
        (ROUTER | {"environment": "no slug"}, [("environment", "an environment's name")]),
        (ROUTER | {"environment": ""}, [("environment", "belongs to one environment")]),
        (ROUTER | {"scopes": ["viewer"]}, [("scopes", "has none")]),
        (SCRIPT | {"scopes": []}, [("scopes", SCOPES)]),
        (SCRIPT | {"scopes": ["root"]}, [("scopes", SCOPES)]),
        (SCRIPT | {"scopes": ["viewer", "root"]}, [("scopes", SCOPES)]),
        (SCRIPT | {"scopes": ["agent", "viewer"]}, [("scopes", "the only scope")]),
        (ROUTER | {"expires_at": timedelta(0)}, [("expires_at", "in the future")]),
        (ROUTER | {"expires_at": timedelta(days=-1)}, [("expires_at", "in the future")]),
        (
            {"kind": "router", "environment": "", "label": "", "scopes": ["agent", "viewer"]},
            [
                ("label", "1 to 120"),
                ("environment", "belongs to one"),
                ("scopes", "has none"),
                ("scopes", "the only scope"),
            ],
        ),
    ],
    ids=str,
)
def test_a_bad_key_is_refused_next_to_its_fields(
    fields: dict[str, Any], expected: list[tuple[str, str]], settings: Any
) -> None:
    settings.CLOCK = "process"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False):
        if "expires_at" in fields:
            fields = fields | {"expires_at": clock.now() + fields["expires_at"]}
        assert_named(problems_of(lambda: actions.issue_key(**fields, actor=SYSTEM)), expected)
    assert not Key.objects.exists()
    assert not Entry.objects.exists()


@pytest.mark.parametrize(
    "fields", [{"label": "x" * 120}, {"label": "x"}, {"expires_at": timedelta(microseconds=1)}]
)
def test_a_key_at_its_limits_is_issued(fields: dict[str, Any], settings: Any) -> None:
    settings.CLOCK = "process"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False):
        if "expires_at" in fields:
            fields = {"expires_at": clock.now() + fields["expires_at"]}
        key, _ = actions.issue_key(**ROUTER | fields, actor=SYSTEM)
    assert Key.objects.get() == key


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"invited": " "}, [("invited", "1 to 120 visible characters")]),
        ({"invited": "x" * 121}, [("invited", "1 to 120 visible characters")]),
        ({"invited": "N\u200bna"}, [("invited", "1 to 120 visible characters")]),
        ({"email": "not an address"}, [("email", "not a valid address")]),
        ({"email": "a" * 243 + "@example.com"}, [("email", "not a valid address")]),
        ({"roles": []}, [("roles", "at least one role")]),
        (
            {"roles": [*EDITOR, {"role": "king"}]},
            [("roles/1/role", "viewer, editor, approver, operator, admin")],
        ),
        ({"roles": [*EDITOR, {"environment": "staging"}]}, [("roles/1/role", "viewer, editor")]),
        (
            {"roles": [{"environment": "no such/place", "role": "editor"}]},
            [("roles/0/environment", "an environment's name")],
        ),
        ({"teams": ["support", "nobody"]}, [("teams", "no team nobody")]),
        ({"lives": timedelta(minutes=5, microseconds=-1)}, [("days", "between 5 minutes and 30 days")]),
        ({"lives": timedelta(days=30, microseconds=1)}, [("days", "between 5 minutes and 30 days")]),
        ({"invited": "", "roles": []}, [("invited", "1 to 120"), ("roles", "at least one")]),
    ],
    ids=str,
)
def test_a_bad_invitation_is_refused_next_to_its_fields(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    Team.objects.create(name="support")
    wanted: dict[str, Any] = {"invited": "Nina", "roles": EDITOR, "reason": "new", **fields}
    assert_named(problems_of(lambda: actions.invite(**wanted, actor=SYSTEM)), expected)
    assert not Invitation.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"invited": "x" * 120},
        {"email": "a" * 242 + "@example.com"},
        {"lives": timedelta(minutes=5)},
        {"lives": timedelta(days=30)},
        {"roles": [{"role": "editor"}]},
    ],
    ids=str,
)
def test_an_invitation_at_its_limits_is_created(fields: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {"invited": "Nina", "roles": EDITOR, "reason": "new", **fields}
    made, _ = actions.invite(**wanted, actor=SYSTEM)
    assert made.expires_at - made.created_at == fields.get("lives", timedelta(days=3))
    assert made.email == fields.get("email", "")


@pytest.mark.parametrize(
    ("role", "environment", "words"),
    [
        ("king", "staging", "viewer, editor, approver, operator, admin"),
        ("agent", "staging", "is not a role"),
        ("", "staging", "is not a role"),
        ("viewer", "no such/place", "is not an environment's name"),
        ("viewer", " ", "is not an environment's name"),
    ],
)
def test_a_bad_role_is_not_granted(role: str, environment: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        actions.grant_role(User.objects.create_user("ann"), role, environment, actor=SYSTEM)
    assert not Membership.objects.exists()
    assert not Entry.objects.exists()


@pytest.mark.parametrize("name", ["", "a" * 65, "two words", "a/b", "ä"])
def test_a_team_with_a_bad_name_is_not_created(name: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 64 letters"):
        actions.create_team(name, actor=SYSTEM)
    assert not Team.objects.exists()


def test_the_name_of_a_team_has_at_most_64_characters() -> None:
    assert actions.create_team("a" * 64, actor=SYSTEM) == Team.objects.get()


# --- what does not exist, or has ended ---------------------------------------------------------------------


def gone(model: type[User | Membership]) -> Any:
    """A row that somebody else deletes after it was read."""
    user = User.objects.create_user("ann")
    row = user if model is User else Membership.objects.create(user=user, role="viewer")
    kept = model.objects.get(pk=row.pk)
    row.delete()
    return kept


MISSING: dict[str, Callable[[], Any]] = {
    "a revoked key": lambda: actions.revoke_key("nobodys", actor=SYSTEM, reason="x"),
    "a rotated key": lambda: actions.rotate_key("nobodys", actor=SYSTEM),
    "a revoked invitation": lambda: actions.revoke_invitation(NOBODY, actor=SYSTEM, reason="x"),
    "a withdrawn role": lambda: actions.withdraw_role(gone(Membership), actor=SYSTEM, reason="x"),
    "a deactivated person": lambda: actions.deactivate_person(gone(User), actor=SYSTEM, reason="x"),
}


@pytest.mark.parametrize("missing", MISSING)
def test_a_change_of_what_does_not_exist_is_not_found(missing: str) -> None:
    with pytest.raises(NotFound):
        MISSING[missing]()
    assert not Entry.objects.filter(outcome="done").exists()


def test_what_does_not_exist_has_no_page_and_no_address() -> None:
    call, client = Caller("admin"), logged_in("root", "admin")
    assert call("PUT", "teams/nobody", {"members": []}).status_code == 404
    assert call("POST", f"invitations/{uuid4()}/revoke", {"reason": "x"}).status_code == 404
    assert call("DELETE", "memberships/99999").status_code == 404
    assert call("POST", "keys/nobodys/revoke", {"reason": "x"}).status_code == 404
    for path in ("teams/nobody/", f"people/invitations/{uuid4()}/revoke/", "people/roles/99999/withdraw/"):
        assert client.get(f"/console/{path}").status_code == 404, path


def test_only_a_superusers_rights_are_withdrawn() -> None:
    with pytest.raises(Conflict, match="ann is not an administrator"):
        actions.withdraw_superuser(User.objects.create_user("ann"), actor=SYSTEM, reason="x")


def test_two_accounts_of_one_name_at_the_same_time_are_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found the name free; the database refuses the second."""
    actions.create_person("ann", actor=SYSTEM, reason="new")
    monkeypatch.setattr(QuerySet, "exists", lambda self: False)
    with pytest.raises(AlreadyExists, match="The name ann is taken"):
        actions.create_person("ann", actor=SYSTEM, reason="new")
    assert User.objects.count() == 1


def test_an_invitation_by_a_key_that_was_not_recorded_has_ended() -> None:
    """An older version did not record which key created an invitation."""
    _, token = actions.invite("Nina", roles=EDITOR, reason="new", actor=SYSTEM)
    Invitation.objects.update(inviter_label="key script")
    with pytest.raises(InvitationEnded, match="no longer exists"):
        actions.accept_with_password(
            actions.token_hash(token), username="nina", password="a long enough word"
        )
    assert not User.objects.exists()


def test_an_invitation_ends_with_the_key_that_created_it(settings: Any) -> None:
    """The key was rotated after the invitation, and its overlap ends first."""
    settings.CLOCK = "process"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
        key, _ = actions.issue_key("admin", "", "a script", scopes=["admin"], actor=SYSTEM)
        acting = Actor("key", key.key_id, key.words, None)
        tokens = [actions.invite("Nina", roles=EDITOR, reason="new", actor=acting)[1] for _ in range(2)]
        actions.rotate_key(key.key_id, actor=SYSTEM, overlap=timedelta(hours=1))
        now.shift(timedelta(hours=1) - timedelta(microseconds=1))
        actions.accept_as(actions.token_hash(tokens[0]), User.objects.create_user("nina"))
        now.shift(timedelta(microseconds=1))
        with pytest.raises(
            InvitationEnded, match="key that created this invitation has expired or was revoked"
        ):
            actions.accept_as(actions.token_hash(tokens[1]), User.objects.create_user("tom"))
    assert list(Membership.objects.values_list("user__username", flat=True)) == ["nina"]


# --- rotation ----------------------------------------------------------------------------------------------


def test_a_rotation_shortens_the_life_of_the_old_key_and_never_prolongs_it(settings: Any) -> None:
    settings.CLOCK = "process"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False):
        now = clock.now()
        for lives, ends in ((None, timedelta(days=1)), (timedelta(days=90), timedelta(days=1))):
            expires_at = None if lives is None else now + lives
            key, _ = actions.issue_key(**ROUTER, actor=SYSTEM, expires_at=expires_at)
            successor, _ = actions.rotate_key(key.key_id, actor=SYSTEM)
            assert Key.objects.get(pk=key.pk).expires_at == now + ends
            assert successor.expires_at == expires_at
        short, _ = actions.issue_key(**ROUTER, actor=SYSTEM, expires_at=now + timedelta(hours=1))
        actions.rotate_key(short.key_id, actor=SYSTEM)
        assert Key.objects.get(pk=short.pk).expires_at == now + timedelta(hours=1)


def test_a_key_is_rotated_again_after_its_successor_was_revoked() -> None:
    key, _ = actions.issue_key(**ROUTER, actor=SYSTEM)
    successor, _ = actions.rotate_key(key.key_id, actor=SYSTEM)
    actions.revoke_key(successor.key_id, actor=SYSTEM, reason="it was in a log")
    again, _ = actions.rotate_key(key.key_id, actor=SYSTEM)
    assert (again.rotated_from, again.environment, again.scopes, again.workloads) == (
        key, "production", [], [],
    )  # fmt: skip


@pytest.mark.parametrize("days", [None, 90])
def test_a_key_that_is_rotated_again_lives_as_long_as_before(days: int | None) -> None:
    """Its own expiry is the end of the overlap by then: the next successor lived for a day."""
    ends = None if days is None else clock.now() + timedelta(days=days)
    key, _ = actions.issue_key(**ROUTER, actor=SYSTEM, expires_at=ends)
    for _number in range(3):
        successor, _ = actions.rotate_key(key.key_id, actor=SYSTEM)
        if ends is None:
            assert successor.expires_at is None
        else:
            assert successor.expires_at is not None
            assert abs(successor.expires_at - ends) < timedelta(hours=1)
        actions.rotate_key(successor.key_id, actor=SYSTEM)  # so that it, too, ends with its overlap
        actions.revoke_key(successor.key_id, actor=SYSTEM, reason="it was in a log")


def test_scopes_and_workloads_are_stored_sorted_and_once() -> None:
    key, _ = actions.issue_key(
        "admin", "", "x", actor=SYSTEM, scopes=["viewer", "editor", "viewer"], workloads=["b", "a", "b"]
    )
    assert (key.scopes, key.workloads) == (["editor", "viewer"], ["a", "b"])
