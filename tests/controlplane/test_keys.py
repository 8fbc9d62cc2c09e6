"""API keys: their text, their validity, and who may create and revoke them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from hypothesis import given
from hypothesis import strategies as st

from controlplane.access import actions, keys
from controlplane.access.models import Key, Role
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KeyExpired,
    KeyRevoked,
    NotYourKey,
    Unauthenticated,
)


def test_a_key_text_can_be_parsed() -> None:
    key_id, text = keys.new_key_text("router", "production")
    parsed = keys.parse_key(text)
    assert parsed == keys.ParsedKey("router", "production", key_id, keys.secret_hash(text))
    assert text.startswith(f"pmr_production_{key_id}_")
    assert len(text) == len(f"pmr_production_{key_id}_") + 43 + 6


@pytest.mark.parametrize("environment", ["", "a_b", "staging-eu_2"])
def test_an_environment_name_may_contain_separators(environment: str) -> None:
    parsed = keys.parse_key(keys.new_key_text("admin", environment)[1])
    assert parsed is not None
    assert (parsed.kind, parsed.environment) == ("admin", environment)


@given(st.data())
def test_a_changed_character_is_detected_without_a_lookup(data: st.DataObject) -> None:
    text = keys.new_key_text("router", "staging")[1]
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda c: c != text[at]))
    assert keys.parse_key(text[:at] + other + text[at + 1 :]) is None


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    assert keys.parse_key(text) is None
    assert keys.parse_key(f"pmr_{text}") is None


@pytest.mark.django_db
class TestIssuedKeys:
    def issue(self, **fields: Any) -> tuple[Key, str]:
        return actions.issue_key("router", "production", "a router", actor=SYSTEM, **fields)

    def check(self, key: Key, text: str) -> None:
        keys.check(keys.parse_key(text), Key.objects.get(pk=key.pk), clock.now())

    def test_it_is_good_and_its_secret_is_not_kept(self) -> None:
        key, text = self.issue()
        self.check(key, text)
        assert text not in repr(Key.objects.values().get())
        assert text[-49:].encode() not in b"".join(bytes(entry.body) for entry in Entry.objects.all())

    def test_it_refuses_another_secret_under_the_same_id(self) -> None:
        key, _ = self.issue()
        start = f"pmr_production_{key.key_id}_" + "x" * 43
        forged = start + keys._checksum(start)
        assert keys.parse_key(forged) is not None
        with pytest.raises(Unauthenticated):
            self.check(key, forged)

    def test_it_refuses_a_revoked_key(self) -> None:
        key, text = self.issue()
        actions.revoke_key(key.key_id, actor=SYSTEM, reason="lost")
        with pytest.raises(KeyRevoked):
            self.check(key, text)

    def test_it_expires_at_its_time(self, settings: Any) -> None:
        settings.CLOCK = "process"
        with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
            key, text = self.issue(expires_at=clock.now() + timedelta(hours=1))
            now.shift(timedelta(hours=1) - timedelta(microseconds=1))
            self.check(key, text)
            now.shift(timedelta(microseconds=1))
            with pytest.raises(KeyExpired):
                self.check(key, text)

    def test_a_second_revocation_changes_nothing(self) -> None:
        key, _ = self.issue()
        first = actions.revoke_key(key.key_id, actor=SYSTEM, reason="lost")
        second = actions.revoke_key(key.key_id, actor=SYSTEM, reason="lost")
        assert first.revoked_at == second.revoked_at
        assert Entry.objects.filter(action="key.revoke").count() == 1

    def test_a_rotated_key_works_during_the_overlap(self, settings: Any) -> None:
        settings.CLOCK = "process"
        with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
            key, text = self.issue()
            successor, new_text = actions.rotate_key(key.key_id, actor=SYSTEM, overlap=timedelta(days=7))
            now.shift(timedelta(days=7) - timedelta(seconds=1))
            self.check(key, text)
            now.shift(timedelta(seconds=1))
            self.check(successor, new_text)
            with pytest.raises(KeyExpired):
                self.check(key, text)

    def test_an_overlap_is_at_most_seven_days(self) -> None:
        key, _ = self.issue()
        with pytest.raises(InvalidInput):
            actions.rotate_key(key.key_id, actor=SYSTEM, overlap=timedelta(days=7, microseconds=1))

    def test_an_overlap_may_be_zero_but_not_negative(self) -> None:
        key, text = self.issue()
        with pytest.raises(InvalidInput):
            actions.rotate_key(key.key_id, actor=SYSTEM, overlap=timedelta(microseconds=-1))
        successor, new_text = actions.rotate_key(key.key_id, actor=SYSTEM, overlap=timedelta(0))
        self.check(successor, new_text)
        with pytest.raises(KeyExpired):
            self.check(key, text)

    def test_a_key_that_has_ended_is_not_rotated(self, settings: Any) -> None:
        settings.CLOCK = "process"
        with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
            revoked, _ = self.issue()
            actions.revoke_key(revoked.key_id, actor=SYSTEM, reason="lost")
            expiring, _ = self.issue(expires_at=clock.now() + timedelta(hours=1))
            with pytest.raises(Conflict, match="has expired or was revoked"):
                actions.rotate_key(revoked.key_id, actor=SYSTEM)
            now.shift(timedelta(hours=1))
            with pytest.raises(Conflict, match="has expired or was revoked"):
                actions.rotate_key(expiring.key_id, actor=SYSTEM)

    def test_a_key_is_rotated_until_the_last_moment_of_its_life(self, settings: Any) -> None:
        settings.CLOCK = "process"
        with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
            key, _ = self.issue(expires_at=clock.now() + timedelta(hours=1))
            now.shift(timedelta(hours=1) - timedelta(seconds=1))
            successor, _ = actions.rotate_key(key.key_id, actor=SYSTEM)
            assert successor.expires_at == clock.now() + timedelta(hours=1), "it expires with the first one"

    def test_a_key_that_expires_on_the_last_day_can_be_rotated(self) -> None:
        last = datetime.max.replace(tzinfo=UTC, microsecond=0)
        key, _ = self.issue(expires_at=last)
        Key.objects.filter(pk=key.pk).update(created_at=clock.now() - timedelta(days=30))
        successor, text = actions.rotate_key(key.key_id, actor=SYSTEM)
        assert successor.expires_at is not None
        assert successor.expires_at >= last
        self.check(successor, text)

    def test_a_key_is_rotated_once_so_two_are_alive_at_most(self) -> None:
        key, _ = self.issue()
        actions.rotate_key(key.key_id, actor=SYSTEM)
        with pytest.raises(Conflict):
            actions.rotate_key(key.key_id, actor=SYSTEM)

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "router", "environment": ""},
            {"kind": "router", "scopes": ["viewer"]},
            {"kind": "admin", "scopes": []},
            {"kind": "admin", "scopes": ["root"]},
            {"kind": "other"},
            {"environment": "no slug"},
            {"label": " "},
        ],
    )
    def test_it_refuses_invalid_fields(self, fields: dict[str, Any]) -> None:
        wanted = {"kind": "router", "environment": "production", "label": "x"} | fields
        with pytest.raises(InvalidInput):
            actions.issue_key(**wanted, actor=SYSTEM)
        assert not Key.objects.exists()
        assert not Entry.objects.exists()

    def test_nobody_grants_a_role_that_they_do_not_hold(self) -> None:
        person = User.objects.create_user("ann")
        actions.grant_role(person, Role.EDITOR, "staging", actor=SYSTEM)
        actor = Actor.of_user(person)
        actions.issue_key("admin", "staging", "mine", actor=actor, scopes=["editor"], user=person)
        for environment, scope in (("staging", "approver"), ("production", "editor"), ("", "editor")):
            with pytest.raises(Forbidden):
                actions.issue_key("admin", environment, "x", actor=actor, scopes=[scope], user=person)


@pytest.mark.django_db
class TestWhatAKeyPassesOn:
    """Only a key's owner receives its text, and a key cannot create one with more rights."""

    def person(self, name: str, *roles: str, environment: str = "production") -> tuple[User, Actor]:
        user = User.objects.create_user(name)
        for role in roles:
            actions.grant_role(user, role, environment, actor=SYSTEM)
        return user, Actor.of_user(user)

    def acting(self, key: Key) -> Actor:
        return Actor("key", key.key_id, key.label, None if key.user_id is None else str(key.user_id))

    @pytest.mark.parametrize("by", ["admin", "superuser", "admin's key", "the system"])
    def test_only_its_owner_rotates_it(self, by: str) -> None:
        ann, of_ann = self.person("ann", "approver")
        root = User.objects.create_superuser("root")
        key, _ = actions.issue_key("admin", "production", "hers", actor=of_ann, scopes=["approver"], user=ann)
        roots, _ = actions.issue_key(
            "admin", "", "root's", actor=Actor.of_user(root), scopes=["admin"], user=root
        )
        actors = {
            "admin": self.person("adam", "admin")[1],
            "superuser": Actor.of_user(root),
            "admin's key": self.acting(roots),
            "the system": SYSTEM,
        }
        with pytest.raises(NotYourKey, match="ann"):
            actions.rotate_key(key.key_id, actor=actors[by])
        assert not Key.objects.filter(rotated_from=key).exists()
        actions.rotate_key(key.key_id, actor=of_ann)
        actions.revoke_key(key.key_id, actor=actors[by], reason="a laptop was lost")

    def test_nobody_creates_a_key_for_another_person(self) -> None:
        ann, _ = self.person("ann", "approver")
        root = Actor.of_user(User.objects.create_superuser("root"))
        with pytest.raises(NotYourKey):
            actions.issue_key("admin", "production", "x", actor=root, scopes=["approver"], user=ann)

    @pytest.mark.parametrize(
        "more",
        [
            {"scopes": ["approver"]},
            {"environment": ""},
            {"environment": "staging"},
            {"workloads": []},
            {"workloads": ["s", "t"]},
            {"expires_at": None},
            {"expires_at": timedelta(days=2)},
        ],
        ids=str,
    )
    def test_a_key_cannot_create_one_with_more_rights(self, more: dict[str, Any]) -> None:
        now = clock.now()
        ann, of_ann = self.person("ann", "editor", "approver", "admin", environment="")
        narrow: dict[str, Any] = {
            "environment": "production",
            "scopes": ["editor"],
            "workloads": ["s"],
            "expires_at": now + timedelta(days=1),
        }
        key, _ = actions.issue_key("admin", label="narrow", actor=of_ann, user=ann, **narrow)
        if isinstance(more.get("expires_at"), timedelta):
            more = {"expires_at": now + more["expires_at"]}
        with pytest.raises(Forbidden):
            actions.issue_key("admin", label="wide", actor=self.acting(key), user=ann, **narrow | more)
        actions.issue_key("admin", label="same", actor=self.acting(key), user=ann, **narrow)

    def test_a_key_that_rotates_itself_lives_no_longer(self) -> None:
        ann, of_ann = self.person("ann", "viewer")
        ends = clock.now() + timedelta(days=3)
        key, _ = actions.issue_key(
            "admin", "production", "k", actor=of_ann, scopes=["viewer"], user=ann, expires_at=ends
        )
        successor, _ = actions.rotate_key(key.key_id, actor=self.acting(key))
        assert successor.expires_at == ends
