"""Sessions know whose they are, and those of nobody do not last."""

from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.test import Client

from controlplane.access import actions, tasks
from controlplane.access.actions import sessions
from controlplane.access.models import Session
from controlplane.access.sign_in.session_store import BEFORE_SIGN_IN
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
RIGHT = "a long enough word"


@pytest.fixture(autouse=True)
def _localhost(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]


def challenged() -> Client:
    """A browser that nobody has logged in with, and that asked for a passkey's challenge."""
    client = Client(SERVER_NAME="localhost")
    answer = client.get("/console/login/passkey/", headers={"Accept": "application/json"})
    assert answer.status_code == 200
    return client


def waiting(name: str) -> Client:
    """A browser with the right name and password, before the second factor."""
    user = actions.create_person(name, password=RIGHT, actor=SYSTEM, reason="new here")
    TOTP.activate(user, generate_totp_secret())
    client = Client()
    client.post("/console/login/", {"username": name, "password": RIGHT})
    return client


def test_the_columns_say_whose_session_it_is() -> None:
    logged_in("ann"), waiting("maria"), challenged()
    ann, maria = (User.objects.get(username=name).pk for name in ("ann", "maria"))
    found = Session.objects.values_list("user_id", "signed_in")
    assert set(found) == {(ann, True), (maria, False), (None, False)}


def test_a_session_of_nobody_ends_soon_and_a_sign_in_lasts() -> None:
    challenged(), waiting("maria")
    now = clock.now()
    assert all(row.expire_date <= now + BEFORE_SIGN_IN for row in Session.objects.all())
    Session.objects.update(expire_date=now - timedelta(seconds=1))
    tasks.prune()
    assert not Session.objects.exists()
    logged_in("ann")
    assert Session.objects.get().expire_date > now + timedelta(seconds=settings.SESSION_COOKIE_AGE - 60)


def test_ending_sessions_reads_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 30,000 sessions of strangers, which anybody can make, it held the lock on the admins for seconds."""
    logged_in("ann"), logged_in("tom"), challenged()
    ann = User.objects.get(username="ann")

    def decode(*_: Any) -> Any:
        raise AssertionError("a session was read")

    monkeypatch.setattr(SessionBase, "decode", decode)
    actions.end_sessions(ann, actor=SYSTEM, reason="a lost laptop")
    assert {row.user_id for row in Session.objects.all()} == {None, User.objects.get(username="tom").pk}


def test_only_waiting_sign_ins_end_with_a_new_password() -> None:
    client = waiting("maria")
    maria = User.objects.get(username="maria")
    logged_in("maria")
    sessions.end_waiting_sign_ins_of(maria)
    assert Session.objects.get().signed_in
    assert client.get("/console/login/second-factor/")["Location"].startswith("/console/login/")
