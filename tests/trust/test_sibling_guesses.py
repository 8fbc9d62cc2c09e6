"""Siblings of the guesses at passwords, and of changes without a reason: other doors, and the command line."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

from controlplane.audit.models import Entry

pytestmark = pytest.mark.django_db
RIGHT = "a long enough word"


@pytest.fixture
def stolen() -> Client:
    """A session of maria's in the hands of somebody who does not know her password."""
    cache.clear()
    client = Client()
    client.force_login(User.objects.create_user("maria", password=RIGHT))
    return client


def refusals() -> list[str]:
    return list(Entry.objects.filter(outcome="refused").values_list("action", flat=True))


DOORS: dict[str, Any] = {
    "/console/account/confirm/": lambda word: {"password": word},
    "/console/account/password/": lambda word: {
        "oldpassword": word, "password1": "another long word 7", "password2": "another long word 7",
    },
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_guesses_in_a_stolen_session_are_entries_and_count_as_sign_ins(door: str, stolen: Client) -> None:
    for number in range(4):
        stolen.post(door, DOORS[door](f"wrong {number}"))
    assert refusals() == ["session.begin"] * 4
    for number in range(6):
        Client().post("/console/login/", {"username": "maria", "password": f"wrong too {number}"})
    cache.clear()  # what remains is the count by name and address
    assert stolen.post(door, DOORS[door](RIGHT)).status_code == 429
    assert User.objects.get().check_password(RIGHT)


def test_a_key_by_the_command_takes_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("keys", "create", "admin", "cron", "--scope", "viewer", "--reason", "for the nightly report")
    call_command("keys", "create", "admin", "cron", "--scope", "viewer")
    reasons = Entry.objects.filter(action="key.issue").order_by("seq").values_list("reason", flat=True)
    assert list(reasons) == ["for the nightly report", "Created by a command on the server."]
    assert "pma_" in capsys.readouterr().out
