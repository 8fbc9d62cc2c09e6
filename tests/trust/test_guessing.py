"""Guesses at passwords, codes and invitations are limited wherever they are possible, and become entries.

Also: a key created by a command takes a reason.
"""

from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from controlplane.audit.models import Entry
from controlplane.audit.refusals import EACH

pytestmark = pytest.mark.django_db
RIGHT = "a long enough word"


@pytest.fixture
def stolen() -> Client:
    """Maria's session, used by somebody who does not know her password."""
    cache.clear()
    client = Client()
    client.force_login(User.objects.create_user("maria", password=RIGHT))
    return client


def refusals() -> list[str]:
    return list(Entry.objects.filter(outcome="refused").values_list("action", flat=True))


FORMS: dict[str, Any] = {
    "/console/account/confirm/": lambda word: {"password": word},
    "/console/account/password/": lambda word: {
        "oldpassword": word, "password1": "another long word 7", "password2": "another long word 7",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_guesses_in_a_stolen_session_are_entries_and_count_as_sign_ins(form: str, stolen: Client) -> None:
    for number in range(4):
        stolen.post(form, FORMS[form](f"wrong {number}"))
    assert refusals() == ["session.begin"] * 4
    for number in range(6):
        Client().post("/console/login/", {"username": "maria", "password": f"wrong too {number}"})
    cache.clear()  # only the count by name and address remains
    assert stolen.post(form, FORMS[form](RIGHT)).status_code == 429
    assert User.objects.get().check_password(RIGHT)


def test_a_key_created_by_a_command_takes_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("keys", "create", "admin", "cron", "--scope", "viewer", "--reason", "for the nightly report")
    call_command("keys", "create", "admin", "cron", "--scope", "viewer")
    reasons = Entry.objects.filter(action="key.issue").order_by("seq").values_list("reason", flat=True)
    assert list(reasons) == ["for the nightly report", "Created by a command on the server."]
    assert "pma_" in capsys.readouterr().out


def test_codes_cannot_be_guessed_in_a_stolen_session_either(stolen: Client) -> None:
    """Guesses at the sign-in and at a confirmation share one count."""
    TOTP.activate(User.objects.get(), "JBSWY3DPEHPK3PXP")
    other = Client()
    other.post("/console/login/", {"username": "maria", "password": RIGHT})
    for number in range(3):
        other.post("/console/login/second-factor/", {"code": f"{number:06}"})
        stolen.post("/console/account/confirm-code/", {"code": f"{number:06}"})
    assert len(refusals()) == 6, "also the sixth, which was not checked"
    right = format_hotp_value(hotp_value("JBSWY3DPEHPK3PXP", int(timezone.now().timestamp()) // 30))
    stolen.post("/console/account/confirm-code/", {"code": right})
    assert stolen.get("/console/account/totp/off/").status_code == 302  # it still asks for a confirmation
    other.post("/console/login/second-factor/", {"code": right})
    assert other.get("/console/").status_code == 302


@pytest.mark.parametrize("path", ["password/reset/", "login/code/", "signup/", "account/password/set/"])
def test_no_other_url_signs_anybody_in(path: str, stolen: Client) -> None:
    """There is no password reset by e-mail, no log-in code by e-mail and no sign-up."""
    for client in (Client(), stolen):
        answer = client.post(
            f"/console/{path}", {"email": "maria@example.org", "password1": "another long 7"}
        )
        assert answer.status_code in (302, 403, 404)
        to = answer.headers.get("Location", "/console/login/")
        assert "/console/login/" in to or to == "/console/account/", "which asks for a login"
    assert User.objects.get().check_password(RIGHT)


def test_guesses_at_invitations_are_folded_into_a_count() -> None:
    client = Client()
    for number in range(30):
        client.get(f"/console/invitation/{number:064x}/")
        assert client.post("/console/invitation/", {"username": "me"}).status_code == 410
    assert len(refusals()) == EACH
    assert not User.objects.exists()
