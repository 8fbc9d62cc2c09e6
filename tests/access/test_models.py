"""The tables of access control: they match their migrations, and no two rows mean the same."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction

from controlplane.access import idempotency
from controlplane.access.models import Answer, ChangeRequest, Invitation, Key, Membership, Team

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INVITATION = {
    "token_sha256": "a",
    "invited": "Nina",
    "inviter_label": "root",
    "created_at": NOW,
    "expires_at": NOW,
}
KEY = {
    "kind": "router",
    "key_id": "K1",
    "secret_sha256": "s",
    "label": "a router",
    "environment": "production",
}
CHANGE = {
    "action": "assignment.serve_first", "environment": "production", "workload": "support", "subject": {},
    "reason": "x", "requested_by": "ann", "contributors": [], "created_at": NOW,
}  # fmt: skip
ANSWER = {"principal": "key:K1", "idempotency_key": "one", "request_sha256": "r", "at": NOW}
# A row, its name, and the values that make another row a different one.
ROWS: dict[str, tuple[type[models.Model], dict[str, Any], str, list[dict[str, Any]]]] = {
    "team": (Team, {"name": "support"}, "support", [{"name": "sales"}]),
    "membership": (
        Membership,
        {"user": "ann", "environment": "staging", "role": "viewer"},
        "ann: viewer in staging",
        [{"user": "bob"}, {"environment": ""}, {"role": "editor"}],
    ),
    "invitation": (Invitation, INVITATION, "invitation of Nina", [{"token_sha256": "b"}]),
    "key": (Key, KEY, "a router (router key K1)", [{"key_id": "K2"}]),
    "change request": (
        ChangeRequest,
        CHANGE,
        "assignment.serve_first production support",
        [
            {"action": "membership.grant"},
            {"environment": "staging"},
            {"workload": ""},
            {"state": "applied"},
            {"state": "rejected"},
            {"state": "withdrawn"},
        ],
    ),
    "answer": (Answer, ANSWER, "key:K1 one: 0", [{"principal": "key:K2"}, {"idempotency_key": "two"}]),
}


def new(model: type[models.Model], values: dict[str, Any]) -> models.Model:
    """Return an unsaved row. `user` is a name."""
    if "user" in values:
        values = values | {"user": User.objects.get_or_create(username=values["user"])[0]}
    return model(**values)


def check(row: models.Model) -> None:
    row.validate_unique()
    row.validate_constraints()


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_exists_once_and_has_a_name(kind: str) -> None:
    model, values, name, others = ROWS[kind]
    row = new(model, values)
    row.save()
    assert str(row) == name
    with pytest.raises(ValidationError):
        check(new(model, values))
    with pytest.raises(IntegrityError), transaction.atomic():
        new(model, values).save()
    for other in others:
        different = new(model, values | other)
        check(different)
        different.save()
        different.delete()


def test_a_role_everywhere_and_a_change_of_no_workload_have_names_too() -> None:
    assert str(new(Membership, {"user": "ann", "role": "admin"})) == "ann: admin in every environment"
    assert str(new(ChangeRequest, CHANGE | {"workload": ""})) == "assignment.serve_first production"


def test_only_a_router_key_needs_an_environment() -> None:
    with pytest.raises(ValidationError):
        new(Key, KEY | {"environment": ""}).validate_constraints()
    with pytest.raises(IntegrityError), transaction.atomic():
        new(Key, KEY | {"environment": ""}).save()
    script = new(Key, KEY | {"environment": "", "kind": "admin"})
    script.validate_constraints()
    script.save()


@pytest.mark.parametrize(
    ("values", "words", "is_agent", "roles"),
    [
        ({}, "key a router", False, []),
        ({"kind": "admin", "scopes": ["viewer"]}, "key a router", False, ["viewer"]),
        (
            {"kind": "admin", "scopes": ["agent"]},
            "agent key a router",
            True,
            ["editor", "operator", "viewer"],
        ),
        ({"kind": "admin", "scopes": ["editor"], "user": "ann"}, "key a router of ann", False, ["editor"]),
        (
            {"kind": "admin", "scopes": ["agent"], "user": "ann"},
            "agent key a router of ann",
            True,
            ["editor", "operator", "viewer"],
        ),
    ],
    ids=str,
)
def test_words_and_roles_of_a_key(
    values: dict[str, Any], words: str, is_agent: bool, roles: list[str]
) -> None:
    key: Any = new(Key, KEY | values)
    assert (key.words, key.is_agent, sorted(key.roles)) == (words, is_agent, roles)


def test_defaults_of_a_row() -> None:
    ids = {ChangeRequest().pk, ChangeRequest().pk, Invitation().pk, Invitation().pk}
    assert len(ids) == 4
    assert (Answer().status, Answer().headers, ChangeRequest().state) == (0, {}, "waiting")
    assert (Key().scopes, Key().workloads, Invitation().roles, ChangeRequest().approvals) == ([], [], [], [])


def test_answers_are_kept_for_a_day(settings: Any) -> None:
    settings.CLOCK = "process"
    with time_machine.travel(NOW, tick=False):
        for name, age in (("old", timedelta(days=1, microseconds=1)), ("kept", timedelta(days=1))):
            new(Answer, ANSWER | {"idempotency_key": name, "at": NOW - age}).save()
        idempotency.prune()
    assert [answer.idempotency_key for answer in Answer.objects.all()] == ["kept"]
