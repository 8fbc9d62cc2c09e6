"""Signing in with a password: its entries in the audit log, and the limits against guessing."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.utils import timezone

from controlplane.access.sign_in import throttle
from controlplane.audit.models import Entry
from tests.support.pages import text

pytestmark = pytest.mark.django_db
LOGIN = "/console/login/"
RIGHT = "a long enough word"


@pytest.fixture
def maria() -> User:
    return User.objects.create_user("maria", password=RIGHT)


def sign_in(client: Client, name: str, password: str, address: str = "10.0.0.1") -> int:
    return client.post(LOGIN, {"username": name, "password": password}, REMOTE_ADDR=address).status_code


def bodies() -> list[dict[str, object]]:
    return [json.loads(bytes(entry.body)) for entry in Entry.objects.order_by("seq")]


def test_sign_in_and_sign_out_are_entries(client: Client, maria: User) -> None:
    assert sign_in(client, "maria", RIGHT) == 302
    assert client.post("/console/logout/").status_code == 302
    assert client.get("/console/").status_code == 302
    begun, ended = bodies()
    assert (begun["action"], begun["outcome"], begun["evidence"]) == (
        "session.begin",
        "done",
        {"by": ["password"]},
    )
    assert begun["target"] == ended["target"] == {"kind": "user", "id": str(maria.pk)}
    assert begun["source"] == "console 10.0.0.1"
    assert ended["action"] == "session.end"


def test_a_failure_is_an_entry_that_names_the_person_without_the_password(
    client: Client, maria: User
) -> None:
    assert sign_in(client, "maria", "a wrong word") == 200
    (body,) = bodies()
    assert (body["action"], body["outcome"]) == ("session.begin", "refused")
    assert body["evidence"] == {"code": "sign_in_failed", "detail": "The name or the password is wrong."}
    assert body["target"] == {"kind": "user", "id": str(maria.pk)}
    assert body["actor"] == {
        "kind": "visitor", "id": "10.0.0.1", "label": "somebody at 10.0.0.1", "user_id": None,
    }  # fmt: skip
    assert "a wrong word" not in json.dumps(body)


def test_an_unknown_name_is_not_stored_because_it_may_be_a_password(client: Client, maria: User) -> None:
    """Somebody typed the password into the field of the name."""
    assert sign_in(client, RIGHT, "x") == 200
    kept = [*bodies(), *AccessAttempt.objects.values()]
    assert len(kept) == 2
    assert RIGHT not in json.dumps(kept, default=str)
    assert bodies()[0]["target"] == {"kind": "user", "id": "of an unknown name"}


def test_after_ten_failures_not_even_the_correct_password_works(client: Client, maria: User) -> None:
    assert [sign_in(client, "maria", f"wrong {number}") for number in range(9)] == [200] * 9
    assert sign_in(client, "Maria ", "wrong again") == 429  # the same person, however it is spelled
    answer = client.post(LOGIN, {"username": "maria", "password": RIGHT}, REMOTE_ADDR="10.0.0.1")
    assert (answer.status_code, answer["Retry-After"]) == (429, "900")
    assert "Wait 15 minutes" in text(answer)
    assert client.get("/console/").status_code == 302
    assert bodies()[-1]["evidence"]["code"] == "too_many_requests"  # type: ignore[index]


def test_a_locked_out_attempt_computes_no_hash(
    client: Client, maria: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        sign_in(client, "maria", f"wrong {number}")
    monkeypatch.setattr("django.contrib.auth.models.User.check_password", None)
    monkeypatch.setattr("django.contrib.auth.models.User.set_password", None)
    assert sign_in(client, "maria", RIGHT) == 429


def test_attempts_from_elsewhere_lock_nobody_out(client: Client, maria: User) -> None:
    for number in range(60):
        sign_in(client, "maria", f"wrong {number}", "203.0.113.9")
    assert sign_in(client, "maria", RIGHT, "203.0.113.9") == 429
    assert sign_in(client, "maria", RIGHT, "10.0.0.1") == 302


def test_a_lock_ends_after_15_minutes(client: Client, maria: User) -> None:
    for number in range(10):
        sign_in(client, "maria", f"wrong {number}")
    with time_machine.travel(timezone.now() + timedelta(minutes=14, seconds=50), tick=False):
        assert sign_in(client, "maria", RIGHT) == 429
    with time_machine.travel(timezone.now() + timedelta(minutes=15, seconds=5), tick=False):
        assert sign_in(client, "maria", RIGHT) == 302


def test_a_successful_sign_in_resets_the_failures(client: Client, maria: User) -> None:
    for number in range(9):
        sign_in(client, "maria", f"wrong {number}")
    assert sign_in(client, "maria", RIGHT) == 302
    client.post("/console/logout/")
    assert sign_in(client, "maria", "wrong once more") == 200


def test_a_flood_of_failures_is_folded_into_a_count(client: Client) -> None:
    for number in range(60):
        sign_in(client, f"name {number}", "x")
    assert Entry.objects.count() == 20


def test_the_password_of_a_deactivated_person_does_not_work(client: Client, maria: User) -> None:
    User.objects.update(is_active=False)
    answer = client.post(LOGIN, {"username": "maria", "password": RIGHT}, follow=True)
    assert "This account is closed" in text(answer)
    assert client.get("/console/").status_code == 302
    assert bodies()[0]["evidence"]["detail"] == "The account is deactivated."  # type: ignore[index]


def test_an_odd_name_is_an_ordinary_failure(client: Client) -> None:
    for name in ("", " ", "a" * 10_000, "\0", "maria\0", "🦊", "%", "' OR 1=1 --", "\u202emaria"):
        assert sign_in(client, name, "x") == 200, name
    assert client.post(LOGIN, {}).status_code == 200
    assert client.post(LOGIN, b"\xff\xfe", content_type="application/json").status_code in (200, 400)


def test_it_redirects_to_the_requested_page_and_nowhere_else(client: Client, maria: User) -> None:
    form = {"username": "maria", "password": RIGHT}
    answer = client.post(LOGIN, form | {"next": "/console/audit/"})
    assert answer["Location"] == "/console/audit/"
    other = Client().post(LOGIN, form | {"next": "https://evil.example/"})
    assert other["Location"] == "/console/"


@pytest.mark.parametrize(
    ("credentials", "posted", "counted"),
    [
        ({"username": "maria"}, "", "maria"),
        ({"username": "maria"}, "tom", "maria"),  # those that were checked count, not the form
        ({"username": " MARIA "}, "", "maria"),
        ({"username": "ｍａｒｉａ"}, "", "maria"),
        ({}, "Maria", "maria"),
        (None, "maria", "maria"),
        ({"username": None}, "", ""),
        (None, "", ""),
    ],
)
def test_every_spelling_of_a_name_is_counted_as_one(
    credentials: dict[str, Any] | None, posted: str, counted: str
) -> None:
    request = RequestFactory().post(LOGIN, {"username": posted})
    found = throttle.counted_name(request, credentials)
    assert found == throttle.counted_name(request, {"username": counted} if counted else None)
    assert re.fullmatch("[0-9a-f]{32}", found), "a hash, which fits its column"
    assert found != throttle.counted_name(request, {"username": "somebody else"})


def test_attempts_are_counted_without_an_address_too() -> None:
    """A server behind a socket may give none."""
    known, unknown = (
        RequestFactory().get("/", REMOTE_ADDR="10.0.0.1"),
        RequestFactory().get("/", REMOTE_ADDR=""),
    )
    assert (throttle.address(known), throttle.client_address(known)) == ("10.0.0.1", "10.0.0.1")
    assert (throttle.address(unknown), throttle.client_address(unknown)) == ("unknown", None)


def test_nobody_can_sign_up(client: Client) -> None:
    from django.urls import NoReverseMatch, reverse

    with pytest.raises(NoReverseMatch):
        reverse("account_signup")
