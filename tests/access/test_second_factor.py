"""The authenticator app and recovery codes: set up, required, used once, removed, each with an entry."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client, override_settings
from django.utils import timezone

from controlplane.access import actions
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from tests.support.pages import text
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
RIGHT = "a long enough word"
NOT_CHECKED = "Too many codes were wrong; this one was not checked."


@pytest.fixture(autouse=True)
def _no_codes_used_before() -> None:
    cache.clear()


@pytest.fixture
def maria() -> User:
    return User.objects.create_user("maria", password=RIGHT)


@pytest.fixture
def secret(maria: User) -> str:
    """The key in her authenticator app."""
    TOTP.activate(maria, "JBSWY3DPEHPK3PXP")
    return "JBSWY3DPEHPK3PXP"


def code(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, int(timezone.now().timestamp()) // 30)))


def with_password(client: Client) -> Any:
    return client.post("/console/login/", {"username": "maria", "password": RIGHT})


def inside(client: Client) -> bool:
    return client.get("/console/").status_code == 200


def last_body() -> dict[str, Any]:
    return dict(json.loads(bytes(Entry.objects.order_by("-seq")[0].body)))


def confirmed(client: Client) -> None:
    client.post("/console/account/confirm/", {"password": RIGHT})


def test_the_password_alone_opens_nothing(client: Client, maria: User, secret: str) -> None:
    answer = with_password(client)
    assert answer["Location"].startswith("/console/login/second-factor/")
    assert not inside(client)
    assert not Entry.objects.exists()
    assert client.post("/console/login/second-factor/", {"code": code(secret)}).status_code == 302
    assert inside(client)
    assert last_body()["evidence"] == {"by": ["password", "totp"]}


@pytest.mark.parametrize("backend", ["controlplane.core.redis_or_memory.RedisOrMemory"])
def test_a_second_factor_needs_no_redis(
    backend: str, client: Client, maria: User, secret: str, settings: Any
) -> None:
    """Without it the workers stand still, and people must be able to roll back."""
    settings.CACHES = settings.CACHES | {
        "default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1", "OPTIONS": {"socket_timeout": 0.5}}
    }
    with_password(client)
    used = {"code": code(secret)}
    assert client.post("/console/login/second-factor/", {"code": "000000"}).status_code == 200
    assert client.post("/console/login/second-factor/", used).status_code == 302
    assert inside(client)
    again = Client()
    with_password(again)
    assert "The code is wrong" in text(again.post("/console/login/second-factor/", used))


def test_a_wrong_code_is_recorded_for_the_person(client: Client, maria: User, secret: str) -> None:
    with_password(client)
    answer = client.post("/console/login/second-factor/", {"code": "000000"})
    assert "The code is wrong" in text(answer)
    assert not inside(client)
    body = last_body()
    assert (body["action"], body["outcome"], body["target"]["id"]) == (
        "session.begin",
        "refused",
        str(maria.pk),
    )
    assert body["evidence"]["detail"] == "The code of the second factor is wrong."


def test_codes_cannot_be_guessed(client: Client, maria: User, secret: str) -> None:
    """After five wrong codes not even the correct one is accepted."""
    with_password(client)
    for number in range(5):
        client.post("/console/login/second-factor/", {"code": f"{number:06}"})
    client.post("/console/login/second-factor/", {"code": code(secret)})
    assert not inside(client)


def test_every_code_that_was_tried_is_an_entry(client: Client, maria: User, secret: str) -> None:
    """After the fifth they were not checked, and left no entry."""
    with_password(client)
    for number in range(7):
        client.post("/console/login/second-factor/", {"code": f"{number:06}"})
    details = [json.loads(bytes(entry.body))["evidence"]["detail"] for entry in Entry.objects.order_by("seq")]
    assert details == ["The code of the second factor is wrong."] * 5 + [NOT_CHECKED] * 2
    assert {entry.target_id for entry in Entry.objects.all()} == {str(maria.pk)}


def test_codes_that_confirm_it_is_you_are_entries_too(client: Client, maria: User, secret: str) -> None:
    with_password(client)
    client.post("/console/login/second-factor/", {"code": code(secret)})
    for number in range(7):
        client.post("/console/account/confirm-code/", {"code": f"{number:06}"})
    refused = Entry.objects.filter(outcome="refused")
    assert refused.count() == 7
    assert last_body()["evidence"]["detail"] == NOT_CHECKED


def _deactivate(maria: User) -> None:
    actions.deactivate_person(maria, actor=SYSTEM, reason="left")
    actions.activate_person(maria, actor=SYSTEM, reason="came back")


def _log_out_everywhere(maria: User) -> None:
    actions.end_sessions(maria, actor=SYSTEM, reason="a lost laptop")


def _set_a_password(maria: User) -> None:
    actions.change_password(maria, "another long word", actor=SYSTEM, reason="she told somebody")


def _change_the_password(maria: User) -> None:
    other, new = logged_in("maria"), "another long word"
    form = {"oldpassword": RIGHT, "password1": new, "password2": new}
    assert other.post("/console/account/password/", form).status_code == 302
    assert inside(other)


@pytest.mark.parametrize("end", [_deactivate, _log_out_everywhere, _set_a_password, _change_the_password])
def test_a_sign_in_that_waits_for_its_code_ends_with_the_sessions(
    end: Callable[[User], None], client: Client, maria: User, secret: str
) -> None:
    User.objects.create_superuser("root")
    somebody, else_ = Client(), User.objects.create_user("ann", password=RIGHT)
    TOTP.activate(else_, secret)
    somebody.post("/console/login/", {"username": "ann", "password": RIGHT})
    with_password(client)
    end(maria)
    client.post("/console/login/second-factor/", {"code": code(secret)})
    assert not inside(client)
    somebody.post("/console/login/second-factor/", {"code": code(secret)})
    assert inside(somebody), "only hers end"


def test_nobody_who_is_deactivated_finishes_a_sign_in(client: Client, maria: User, secret: str) -> None:
    with_password(client)
    User.objects.update(is_active=False)
    answer = client.post("/console/login/second-factor/", {"code": code(secret)})
    assert answer["Location"] == "/console/account/inactive/"
    assert not Entry.objects.filter(action="session.begin", outcome="done").exists()
    assert last_body()["evidence"]["detail"] == "The account is deactivated."
    User.objects.update(is_active=True)
    assert not inside(client)


def test_a_code_works_once(client: Client, maria: User, secret: str) -> None:
    used = code(secret)
    with_password(client)
    client.post("/console/login/second-factor/", {"code": used})
    assert inside(client)
    other = Client()
    with_password(other)
    other.post("/console/login/second-factor/", {"code": used})
    assert not inside(other)


def test_setting_it_up_requires_the_password_and_is_an_entry(client: Client, maria: User) -> None:
    with_password(client)
    page = client.get("/console/account/totp/on/")
    assert page["Location"].startswith("/console/account/confirm/")
    confirmed(client)
    page = client.get("/console/account/totp/on/")
    shown = page.context["form"].secret
    assert shown in text(page)
    refused = client.post("/console/account/totp/on/", {"code": "12"})
    assert refused.status_code == 200 and not Authenticator.objects.exists()
    done = client.post("/console/account/totp/on/", {"code": code(shown)})
    assert done["Location"] == "/console/account/recovery-codes/"
    assert last_body()["action"] == "second_factor.add"
    assert last_body()["target"] == {"kind": "user", "id": str(maria.pk)}
    assert "10 codes left of 10" in text(client.get("/console/account/recovery-codes/"))
    assert "on" in text(client.get("/console/account/"))


def test_nothing_is_stored_if_its_entry_cannot_be_written(
    client: Client, maria: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_password(client)
    confirmed(client)
    shown = client.get("/console/account/totp/on/").context["form"].secret

    def broken(**kwargs: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("controlplane.access.actions.accounts.log.record", broken)
    with pytest.raises(RuntimeError):
        client.post("/console/account/totp/on/", {"code": code(shown)})
    assert not Authenticator.objects.exists()


def test_a_recovery_code_logs_in_once(client: Client, maria: User, secret: str) -> None:
    with_password(client)
    client.post("/console/login/second-factor/", {"code": code(secret)})
    confirmed(client)
    client.post("/console/account/recovery-codes/new/")
    assert last_body()["action"] == "second_factor.new_recovery_codes"
    codes = client.get("/console/account/recovery-codes/").context["unused_codes"]
    assert len(set(codes)) == 10
    for tried, expected in ((codes[0], True), (codes[0], False), (codes[1], True)):
        other = Client()
        with_password(other)
        other.post("/console/login/second-factor/", {"code": tried})
        assert inside(other) is expected
    assert last_body()["evidence"] == {"by": ["password", "recovery_codes"]}


def test_turning_it_off_is_an_entry(client: Client, maria: User, secret: str) -> None:
    with_password(client)
    client.post("/console/login/second-factor/", {"code": code(secret)})
    assert client.post("/console/account/totp/off/")["Location"].startswith("/console/account/confirm/")
    confirmed(client)
    assert client.post("/console/account/totp/off/").status_code == 302
    assert last_body()["action"] == "second_factor.remove"
    assert not Authenticator.objects.exists()


def test_its_key_is_encrypted_in_the_database(maria: User, secret: str) -> None:
    kept = Authenticator.objects.get()
    assert secret not in json.dumps(kept.data)
    assert kept.wrap().validate_code(code(secret))


def test_an_unreadable_key_is_a_sentence_and_lets_nobody_in(client: Client, maria: User, secret: str) -> None:
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[]):
        with_password(client)
        response = client.post("/console/login/second-factor/", {"code": code(secret)})
        assert response.status_code == 200 and "SECRET_KEY has changed" in response.content.decode()
        assert not inside(client)


def test_its_key_is_readable_after_a_change_of_the_secret_key(maria: User, secret: str) -> None:
    from django.conf import settings

    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert Authenticator.objects.get().wrap().validate_code(code(secret))


def test_a_new_password_is_an_entry_and_ends_the_other_sessions(client: Client, maria: User) -> None:
    other = Client()
    with_password(client), with_password(other)
    form = {"oldpassword": RIGHT, "password1": "another long word", "password2": "another long word"}
    assert client.post("/console/account/password/", form | {"oldpassword": "x"}).status_code == 200
    assert (
        client.post("/console/account/password/", form | {"password1": "12", "password2": "12"}).status_code
        == 200
    )
    assert client.post("/console/account/password/", form).status_code == 302
    body = last_body()
    assert (body["action"], body["actor"]["label"]) == ("password.change", "maria")
    assert "another long word" not in json.dumps(body)
    assert inside(client) and not inside(other)


def test_a_confirmation_lasts_five_minutes(client: Client, maria: User, secret: str) -> None:
    with_password(client)
    client.post("/console/login/second-factor/", {"code": code(secret)})
    confirmed(client)
    with time_machine.travel(timezone.now() + timedelta(minutes=5, seconds=1)):
        assert client.post("/console/account/totp/off/")["Location"].startswith("/console/account/confirm/")


class TestRequired:
    """REQUIRE_SECOND_FACTOR."""

    @pytest.fixture(autouse=True)
    def _required(self) -> Any:
        with override_settings(REQUIRE_SECOND_FACTOR=True):
            yield

    def test_every_page_redirects_to_the_setup(self, client: Client, maria: User) -> None:
        with_password(client)
        for path in ("/console/", "/console/audit/", "/console/fleet/"):
            assert client.get(path)["Location"] == "/console/account/totp/on/"
        assert client.get("/console/account/").status_code == 200

    def test_the_api_names_what_is_missing(self, maria: User) -> None:
        answer = logged_in("maria", "admin").get("/api/v1/keys")
        assert (answer.status_code, answer.json()["code"]) == (403, "second_factor_missing")
        assert not Entry.objects.exists(), "reading is no refusal"

    def test_a_refused_write_is_an_entry(self, maria: User) -> None:
        client = logged_in("maria", "admin")
        answer = client.post("/api/v1/teams", {"name": "x"}, content_type="application/json")
        assert answer.status_code == 403
        body = last_body()
        assert (body["action"], body["outcome"], body["actor"]["label"]) == (
            "request.post",
            "refused",
            "maria",
        )
        assert body["target"] == {"kind": "path", "id": "/api/v1/teams"}
        assert body["evidence"]["code"] == "second_factor_missing"

    def test_with_a_second_factor_everything_works(self, client: Client, maria: User, secret: str) -> None:
        with_password(client)
        client.post("/console/login/second-factor/", {"code": code(secret)})
        assert inside(client)

    def test_keys_and_anonymous_visitors_need_none(self, client: Client) -> None:
        from tests.support.callers import Caller

        assert Caller("viewer")("GET", "teams").status_code == 200
        assert client.get("/console/").status_code == 302
