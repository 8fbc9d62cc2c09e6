"""Accounts are recorded completely in the audit log, also those changed by commands; other changes are detected."""

import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from controlplane.access import actions, first_admin
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import AlreadyExists

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough word"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The answers typed at the terminal, in this order."""
    answers: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt="": answers.pop(0))
    return answers


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def findings() -> list[str]:
    return [str(finding) for finding in verification.verify().findings]


def last_body() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bytes(Entry.objects.latest("seq").body))
    return body


def sql(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


# --- commands ------------------------------------------------------------------------------------------------


def test_the_first_admin_is_recorded_completely() -> None:
    password = first_admin.make_first_admin()
    assert password is not None
    body = last_body()
    assert body["target"] == {"kind": "user", "id": str(User.objects.get().pk)}
    assert password not in json.dumps(body) and User.objects.get().password not in json.dumps(body)
    assert findings() == []


def test_a_command_creates_an_administrator_with_an_entry(typed: list[str]) -> None:
    typed += [PASSWORD, PASSWORD]
    assert "nina can log in" in run("createsuperuser", "nina", "--reason", "the second of two")
    nina = User.objects.get(username="nina")
    assert nina.is_superuser and nina.check_password(PASSWORD)
    entry = Entry.objects.get()
    assert (entry.action, entry.actor_kind, entry.reason) == ("user.create", "system", "the second of two")
    assert last_body()["source"] == "command createsuperuser"
    assert findings() == []


def test_a_command_sets_a_password_with_an_entry(typed: list[str]) -> None:
    actions.create_person("nina", actor=SYSTEM, reason="new", password="another long word")
    typed += [PASSWORD, PASSWORD]
    run("changepassword", "nina")
    assert User.objects.get().check_password(PASSWORD)
    assert last_body()["action"] == "password.change"
    assert [change["path"] for change in last_body()["diff"]] == ["/password"]
    assert findings() == []


@pytest.mark.parametrize(
    ("arguments", "answers", "said"),
    [
        (("createsuperuser", "nina"), [PASSWORD, "another"], "do not match"),
        (("createsuperuser", "nina"), ["short", "short"], "too short"),
        (("createsuperuser", "bad name"), [PASSWORD, PASSWORD], "letters, digits"),
        (("createsuperuser", "ROOT"), [PASSWORD, PASSWORD], "The name ROOT is taken"),
        (("changepassword", "nobody"), [], "no user called nobody"),
        (("changepassword", "root"), ["12345678901", "12345678901"], "numeric"),
    ],
)
def test_a_refused_command_changes_nothing(
    typed: list[str], arguments: tuple[str, ...], answers: list[str], said: str
) -> None:
    actions.create_person("root", actor=SYSTEM, reason="new", password=PASSWORD)
    typed += answers
    with pytest.raises(CommandError, match=said):
        run(*arguments)
    assert User.objects.count() == Entry.objects.count() == 1
    assert User.objects.get().check_password(PASSWORD)


def test_names_that_differ_only_by_case_are_the_same() -> None:
    actions.create_person("root", actor=SYSTEM, reason="new")
    with pytest.raises(AlreadyExists):
        actions.create_person("Root", actor=SYSTEM, reason="new")


# --- changed outside the application ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("is_superuser = true", "is_superuser"),
        ("is_active = false", "is_active"),
        ("is_staff = true", "is_staff"),
        ("password = 'md5$x$y'", "password"),
        ("email = 'other@example.org'", "email"),
        ("username = 'root'", "username"),
        ("first_name = 'R.'", "first_name"),
    ],
)
def test_a_column_changed_by_sql_is_detected_and_named(change: str, column: str) -> None:
    nina = actions.create_person("nina", actor=SYSTEM, reason="new", password=PASSWORD)
    assert findings() == []
    sql(f"UPDATE auth_user SET {change}")
    (found,) = findings()
    assert found.startswith(f"person {nina.pk}: contradicted: {column} is ")


def test_an_account_inserted_by_sql_is_detected() -> None:
    first_admin.make_first_admin()
    User.objects.create_superuser("mallory")
    assert len(findings()) == 1 and "unrecorded" in findings()[0]


# --- an upgrade ----------------------------------------------------------------------------------------------


def test_accounts_from_before_an_upgrade_are_recorded_once() -> None:
    nina = User.objects.create_user("nina", password=PASSWORD)
    assert findings() == [f"person {nina.pk}: unrecorded: no entry of the log created this row"]
    actions.take_stock()
    assert findings() == []
    User.objects.create_superuser("mallory")
    actions.take_stock()
    assert Entry.objects.count() == 1
    assert len(findings()) == 1


def test_accounts_are_not_recorded_again_if_the_first_one_was_recorded() -> None:
    first_admin.make_first_admin()
    User.objects.create_superuser("mallory")
    actions.take_stock()
    assert not Entry.objects.filter(action="user.take_stock").exists()
    assert len(findings()) == 1


def test_an_empty_instance_has_nothing_to_record() -> None:
    actions.take_stock()
    assert not Entry.objects.exists()


# --- hashes ------------------------------------------------------------------------------------------------


def test_an_outdated_hash_is_replaced_at_sign_in_with_an_entry(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PASSWORD_HASHERS = ["controlplane.access.sign_in.hashing.TwoAtOnceArgon2Hasher"]
    monkeypatch.setattr(Argon2PasswordHasher, "memory_cost", 64)
    monkeypatch.setattr(Argon2PasswordHasher, "time_cost", 1)
    nina = actions.create_person("nina", actor=SYSTEM, reason="new", password=PASSWORD)
    monkeypatch.setattr(Argon2PasswordHasher, "memory_cost", 128)
    client = Client()
    for _ in range(2):
        assert client.post("/console/login/", {"username": "nina", "password": PASSWORD}).status_code == 302
        assert client.get("/console/account/").status_code == 200
        client.logout()
    assert "m=128" in User.objects.get(pk=nina.pk).password
    assert list(Entry.objects.filter(action="password.rehash").values_list("actor_kind")) == [("system",)]
    assert findings() == []
