"""Passkeys: added, used after the password or instead of it, removed, each with an entry."""

import html
import json
import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client, override_settings

from controlplane.access import actions
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from tests.support.pages import text
from tests.support.passkey import Passkey

pytestmark = pytest.mark.django_db
RIGHT = "a long enough word"
ADD, LOGIN, AFTER = (
    "/console/account/passkeys/add/",
    "/console/login/passkey/",
    "/console/login/second-factor/",
)
CONFIRM = "/console/account/confirm-passkey/"


@pytest.fixture(autouse=True)
def _nothing_counted_before(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]
    cache.clear()


@pytest.fixture
def client() -> Client:
    return Client(SERVER_NAME="localhost", raise_request_exception=False)


@pytest.fixture
def maria() -> User:
    return actions.create_person("maria", password=RIGHT, actor=SYSTEM, reason="new here")


def options_on(page: Any) -> Any:
    """Return the challenge that the page gives to the script."""
    found = re.search(r'data-options="([^"]+)"', page.content.decode())
    assert found, page.content.decode()
    asked = json.loads(html.unescape(found[1]))
    return asked.get("creation_options") or asked["request_options"]


def with_password(client: Client) -> Any:
    return client.post("/console/login/", {"username": "maria", "password": RIGHT})


def inside(client: Client) -> bool:
    return client.get("/console/account/").status_code == 200


def entries(outcome: str = "done") -> list[str]:
    return list(Entry.objects.filter(outcome=outcome).order_by("seq").values_list("action", flat=True))


def last_body() -> dict[str, Any]:
    return dict(json.loads(bytes(Entry.objects.order_by("-seq")[0].body)))


def added(client: Client, passkey: Passkey, name: str = "my laptop") -> Any:
    with_password(client)
    client.post("/console/account/confirm/", {"password": RIGHT})
    made = passkey.made(options_on(client.get(ADD)))
    return client.post(ADD, {"name": name, "passwordless": "on", "credential": made})


@pytest.fixture
def passkey(maria: User) -> Passkey:
    """Her passkey, added in a browser that is then logged out."""
    found, client = Passkey(), Client(SERVER_NAME="localhost")
    assert added(client, found).status_code == 302
    client.post("/console/logout/")
    return found


def challenge(client: Client) -> Any:
    return client.get(LOGIN, headers={"Accept": "application/json"}).json()["request_options"]


# --- made and taken away ---------------------------------------------------------------------------------


def test_adding_one_requires_the_password_and_is_an_entry(client: Client, maria: User) -> None:
    with_password(client)
    assert client.get(ADD)["Location"].startswith("/console/account/confirm/")
    answer = added(client, Passkey())
    assert answer["Location"] == "/console/account/recovery-codes/"
    body = last_body()
    assert (body["action"], body["evidence"]) == (
        "second_factor.add",
        {"kind": "passkey", "name": "my laptop"},
    )
    assert [change["path"] for change in body["diff"]] == ["/second_factors"]
    page = text(client.get("/console/account/"))
    assert "my laptop" in page and "without password" in page
    assert verification.verify().findings == []


def test_one_inserted_in_the_database_is_detected(maria: User, passkey: Passkey) -> None:
    other = Authenticator.objects.get(type="webauthn")
    Authenticator.objects.create(user=maria, type="webauthn", data=other.data)
    assert "second_factors" in str(verification.verify().findings[0])


def test_removing_the_last_one_ends_the_recovery_codes_and_is_an_entry(
    client: Client, maria: User, passkey: Passkey
) -> None:
    client.force_login(maria)
    address = f"/console/account/passkeys/{Authenticator.objects.get(type='webauthn').pk}/remove/"
    assert client.get(address)["Location"].startswith("/console/account/confirm/")
    client.post("/console/account/confirm/", {"password": RIGHT})
    assert "Remove the passkey my laptop" in text(client.get(address))
    assert client.post(address)["Location"] == "/console/account/"
    assert not Authenticator.objects.exists()
    assert last_body()["action"] == "second_factor.remove"
    assert last_body()["evidence"] == {"kind": "passkey", "name": "my laptop"}


def test_those_of_others_cannot_be_removed(client: Client, passkey: Passkey) -> None:
    client.force_login(actions.create_person("tom", password=RIGHT, actor=SYSTEM, reason="x"))
    client.post("/console/account/confirm/", {"password": RIGHT})
    number = Authenticator.objects.get(type="webauthn").pk
    assert client.post(f"/console/account/passkeys/{number}/remove/").status_code == 404
    assert Authenticator.objects.filter(pk=number).exists()


def test_an_admin_can_remove_a_lost_one(maria: User, passkey: Passkey) -> None:
    ada = actions.create_person("ada", actor=SYSTEM, reason="an admin", superuser=True)
    actions.remove_second_factor(maria, actor=Actor.of_user(ada), reason="it is lost")
    assert not Authenticator.objects.exists()
    assert verification.verify().findings == []


# --- after the password ------------------------------------------------------------------------------------


def test_it_is_required_after_the_password(client: Client, maria: User, passkey: Passkey) -> None:
    assert with_password(client)["Location"].startswith(AFTER)
    assert not inside(client)
    page = client.get(AFTER)
    assert "Use a passkey" in text(page)
    assert client.post(AFTER, {"credential": passkey.used(options_on(page))}).status_code == 302
    assert inside(client)
    assert last_body()["evidence"] == {"by": ["password", "webauthn"]}


def test_after_the_password_a_touch_is_enough(client: Client, maria: User, passkey: Passkey) -> None:
    with_password(client)
    passkey.verifies = False
    client.post(AFTER, {"credential": passkey.used(options_on(client.get(AFTER)))})
    assert inside(client)


def test_a_recovery_code_works_too(client: Client, maria: User, passkey: Passkey) -> None:
    codes = Authenticator.objects.get(type="recovery_codes").wrap().get_unused_codes()
    with_password(client)
    client.post(AFTER, {"code": codes[0]})
    assert inside(client)


def test_it_satisfies_a_required_second_factor(client: Client, maria: User, passkey: Passkey) -> None:
    with override_settings(REQUIRE_SECOND_FACTOR=True):
        with_password(client)
        client.post(AFTER, {"credential": passkey.used(options_on(client.get(AFTER)))})
        assert client.get("/console/").status_code == 200


@pytest.mark.parametrize("how", ["another's", "another page's", "an old one", "a key of its own", "no one"])
def test_a_wrong_one_opens_nothing_and_is_one_entry(
    client: Client, maria: User, passkey: Passkey, how: str
) -> None:
    with_password(client)
    options = options_on(client.get(AFTER))
    match how:
        case "another's":
            passkey = Passkey(handle=passkey.handle)
        case "another page's":
            passkey.origin = "https://localhost.example.org"
        case "an old one":
            client.get(AFTER)  # makes another challenge
        case "a key of its own":
            passkey.key = Passkey().key
        case "no one":
            passkey = Passkey(id=b"", handle=b"")
    before = entries("refused")
    answer = client.post(AFTER, {"credential": passkey.used(options)})
    assert "The passkey was not accepted" in text(answer)
    assert not inside(client)
    assert entries("refused") == [*before, "session.begin"]
    assert last_body()["target"]["id"] == str(maria.pk)


def test_a_response_works_once(client: Client, maria: User, passkey: Passkey) -> None:
    with_password(client)
    answer = passkey.used(options_on(client.get(AFTER)))
    client.post(AFTER, {"credential": answer})
    client.post("/console/logout/")
    with_password(client)
    client.get(AFTER)
    client.post(AFTER, {"credential": answer})
    assert not inside(client)


def test_guesses_are_limited(client: Client, maria: User, passkey: Passkey) -> None:
    with_password(client)
    for _ in range(12):
        answer = client.post(AFTER, {"credential": Passkey().used(options_on(client.get(AFTER)))})
    assert "Too many" in text(answer)


# --- alone ---------------------------------------------------------------------------------------------------


def test_it_logs_in_alone_and_opens_the_requested_page(client: Client, maria: User, passkey: Passkey) -> None:
    assert "Log in with a passkey" in text(client.get("/console/login/?next=/console/audit/"))
    form = {"credential": passkey.used(challenge(client)), "next": "/console/audit/"}
    assert client.post(LOGIN, form)["Location"] == "/console/audit/"
    assert inside(client)
    assert last_body()["action"] == "session.begin"
    assert last_body()["evidence"] == {"by": ["webauthn"]}


def test_alone_it_must_have_verified_the_person(client: Client, maria: User, passkey: Passkey) -> None:
    passkey.verifies = False
    assert (
        client.post(LOGIN, {"credential": passkey.used(challenge(client))})["Location"] == "/console/login/"
    )
    assert not inside(client)
    assert entries("refused") == ["session.begin"]


def test_a_deactivated_person_cannot_log_in(client: Client, maria: User, passkey: Passkey) -> None:
    actions.create_person("ada", actor=SYSTEM, reason="an admin", superuser=True)
    actions.deactivate_person(maria, actor=SYSTEM, reason="left")
    client.post(LOGIN, {"credential": passkey.used(challenge(client))})
    assert not inside(client)
    assert last_body()["outcome"] == "refused"


def test_the_handle_of_somebody_else_does_not_help(client: Client, maria: User, passkey: Passkey) -> None:
    """The passkey names its person; only that person's keys can prove it."""
    boss = actions.create_person("boss", password=RIGHT, actor=SYSTEM, reason="x", superuser=True)
    passkey.handle = str(boss.pk).encode()
    client.post(LOGIN, {"credential": passkey.used(challenge(client))})
    assert not inside(client)
    assert last_body()["target"]["id"] == "of an unknown name"


def test_a_foreign_next_is_ignored(client: Client, maria: User, passkey: Passkey) -> None:
    form = {"credential": passkey.used(challenge(client)), "next": "https://evil.example/"}
    assert client.post(LOGIN, form)["Location"] == "/console/"


# --- before a change -----------------------------------------------------------------------------------------


def test_a_person_without_a_password_confirms_with_it(client: Client, maria: User, passkey: Passkey) -> None:
    User.objects.filter(pk=maria.pk).update(password="!")
    client.post(LOGIN, {"credential": passkey.used(challenge(client))})
    sent_to = client.get(ADD)["Location"]
    page = text(client.get(sent_to))
    assert CONFIRM in page
    confirmed = client.post(
        f"{CONFIRM}?next={ADD}", {"credential": passkey.used(options_on(client.get(CONFIRM)))}
    )
    assert confirmed["Location"] == ADD
    assert "Add a passkey" in text(client.get(ADD))


def test_a_wrong_one_confirms_nothing_and_is_an_entry(client: Client, maria: User, passkey: Passkey) -> None:
    User.objects.filter(pk=maria.pk).update(password="!")
    client.post(LOGIN, {"credential": passkey.used(challenge(client))})
    answer = client.post(CONFIRM, {"credential": Passkey().used(options_on(client.get(CONFIRM)))})
    assert "The passkey was not accepted" in text(answer)
    assert client.get(ADD).status_code == 302
    assert entries("refused") == ["session.begin"]


def test_the_app_can_be_removed_while_the_passkey_stays(
    client: Client, maria: User, passkey: Passkey
) -> None:
    TOTP.activate(maria, "JBSWY3DPEHPK3PXP")
    client.force_login(maria)
    client.post("/console/account/confirm/", {"password": RIGHT})
    client.post("/console/account/totp/off/")
    kinds = set(Authenticator.objects.values_list("type", flat=True))
    assert kinds == {"webauthn", "recovery_codes"}


# --- hostile input -------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = json.loads(Passkey().used({"publicKey": {"challenge": "AAAA"}}))
HOSTILE = {
    "nothing": "", "no JSON": "{", "a number": "1", "a list": "[]", "null": "null", "text": '"x"', "empty": "{}",
    "deep": "[" * 5_000, "long": '{"id":"' + "a" * 20_000 + '"}', "a long number": "9" * 5_000, "NaN": "NaN",
    "NUL": json.dumps({**GOOD, "type": "\0"}), "doubled": '{"id":"a","id":"b"}',
    "a half": json.dumps({**GOOD, "id": "\ud800"}),
    "no response": json.dumps({**GOOD, "response": None}),
    "a response of text": json.dumps({**GOOD, "response": "x"}),
    "no base64": json.dumps({**GOOD, "rawId": "!!!", "id": "!!!"}),
    "a handle of text": json.dumps({**GOOD, "response": {**GOOD["response"], "userHandle": "AP__"}}),
    "a handle of another type": json.dumps({**GOOD, "response": {**GOOD["response"], "userHandle": 7}}),
    "no client data": json.dumps({**GOOD, "response": {**GOOD["response"], "clientDataJSON": "AAAA"}}),
    "no data": json.dumps({**GOOD, "response": {**GOOD["response"], "authenticatorData": "AAAA"}}),
    "no CBOR": json.dumps({**GOOD, "response": {**GOOD["response"], "attestationObject": "AAAA"}}),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_any_bad_input_is_refused_without_a_500(
    client: Client, maria: User, passkey: Passkey, what: str
) -> None:
    challenge(client)
    assert client.post(LOGIN, {"credential": HOSTILE[what]}).status_code == 302
    with_password(client)
    client.get(AFTER)
    assert client.post(AFTER, {"credential": HOSTILE[what]}).status_code == 200
    assert not inside(client)
    client.force_login(maria)
    client.post("/console/account/confirm/", {"password": RIGHT})
    client.get(ADD)
    assert client.post(ADD, {"credential": HOSTILE[what]}).status_code == 200
    assert Authenticator.objects.filter(type="webauthn").count() == 1


def test_a_name_with_an_invisible_character_is_refused(client: Client, maria: User) -> None:
    answer = added(client, Passkey(), name="my\u202elaptop")
    assert "invisible character" in text(answer)
    assert not Authenticator.objects.exists()
