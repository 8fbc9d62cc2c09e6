"""Signing in with the company's identity provider, tested with a local one (`oidc-provider-mock`)."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import pytest
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions
from controlplane.access.sign_in import company
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from tests.support.pages import text
from tests.support.services import free_port

pytestmark = pytest.mark.django_db
START = "/console/login/with/company/"
PASSWORD = "a long enough word"
NINA = {"email": "nina@example.com", "preferred_username": "nina", "given_name": "Nina", "family_name": "N."}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    people = [
        oidc_provider_mock.User(sub="sub-of-nina", claims=NINA),
        oidc_provider_mock.User(
            sub="odd", claims={"preferred_username": "\u202e ../ nina", "email": "no address"}
        ),
        oidc_provider_mock.User(sub="bare", claims={}),
        oidc_provider_mock.User(sub="s" * 200, claims={}),
    ]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(autouse=True)
def _company(issuer: str, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = provider(issuer)


def provider(issuer: str) -> dict[str, Any]:
    app = {
        "provider_id": "company", "name": "Example Inc.", "client_id": "pointsman", "secret": "s",
        "settings": {"server_url": issuer},
    }  # fmt: skip
    return {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}


def there_and_back(client: Client, sub: str = "sub-of-nina", start: str = START) -> Any:
    """Follow the redirects as a browser would: to the provider, sign in there, and come back."""
    away = client.get(start)
    assert away.status_code == 302, away.content
    answer = httpx.post(away["Location"], data={"sub": sub})
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["Location"])
    assert back.path == f"{START}callback/"
    return client.get(f"{back.path}?{back.query}")


def invited(role: str = "editor") -> Client:
    """A browser that has opened an invitation's link."""
    roles = [{"environment": "staging", "role": role}]
    _, token = actions.invite("Nina", actor=SYSTEM, roles=roles, reason="")
    client = Client()
    client.get(f"/console/invitation/{token}/")
    return client


def done() -> list[str]:
    return list(Entry.objects.order_by("seq").values_list("action", flat=True))


def test_the_login_page_offers_it(client: Client) -> None:
    page = client.get("/console/login/?next=/console/audit/").content.decode()
    assert "Continue with Example Inc." in page
    assert f"{START}?next=/console/audit/" in page


def test_an_invited_person_gets_an_account_with_the_roles(client: Client) -> None:
    client = invited()
    assert "Continue with Example Inc." in client.get("/console/invitation/").content.decode()
    assert there_and_back(client)["Location"] == "/console/"
    nina = User.objects.get()
    assert (nina.username, nina.email, nina.get_full_name()) == ("nina", "nina@example.com", "Nina N.")
    assert not nina.has_usable_password()
    assert [held.role for held in nina.memberships.all()] == ["editor"]
    assert client.get("/console/").status_code == 200
    assert done() == [
        "invitation.create", "user.create", "membership.grant", "invitation.accept", "provider.connect",
        "session.begin",
    ]  # fmt: skip
    assert json.loads(bytes(Entry.objects.latest("seq").body))["evidence"] == {"by": ["socialaccount"]}
    assert verification.verify().findings == []


def test_later_they_sign_in_without_a_link_and_reach_the_page_they_wanted(client: Client) -> None:
    there_and_back(invited())
    assert there_and_back(client, start=f"{START}?next=/console/audit/")["Location"] == "/console/audit/"
    assert client.get("/console/").status_code == 200
    assert User.objects.count() == 1


def test_without_an_invitation_they_get_instructions_and_no_account(client: Client) -> None:
    answer = there_and_back(client)
    assert answer.status_code == 403
    words = text(answer)
    assert "logged in at Example Inc. as nina@example.com, but nobody has invited you" in words
    assert "Ask an admin of Pointsman for an invitation" in words
    assert not User.objects.exists() and not SocialAccount.objects.exists()
    entry = Entry.objects.get()
    assert (entry.action, entry.outcome, entry.actor_kind) == ("session.begin", "refused", "visitor")
    assert b"sub-of-nina" in bytes(entry.body)


def test_an_address_known_here_proves_nothing(client: Client) -> None:
    User.objects.create_user("boss", email="nina@example.com", password=PASSWORD)
    assert there_and_back(client).status_code == 403
    there_and_back(invited())
    assert sorted(User.objects.values_list("username", flat=True)) == ["boss", "nina"]


def test_it_uses_up_the_invitation(client: Client) -> None:
    browser = invited()
    there_and_back(browser)
    browser.post("/console/logout/")
    assert there_and_back(browser, "bare").status_code == 403
    assert User.objects.count() == 1


def test_a_taken_name_gets_a_number(client: Client) -> None:
    User.objects.create_user("NINA")
    there_and_back(invited())
    assert User.objects.filter(username="nina2").exists()


@pytest.mark.parametrize(("sub", "expected"), [("odd", "odd"), ("bare", "bare")])
def test_odd_claims_become_a_plain_name(sub: str, expected: str) -> None:
    there_and_back(invited(), sub)
    assert User.objects.get().username == expected


def test_a_deactivated_person_cannot_sign_in(client: Client) -> None:
    there_and_back(invited())
    User.objects.update(is_active=False)
    assert there_and_back(client)["Location"] == "/console/account/inactive/"
    assert client.get("/console/").status_code == 302


def test_the_persons_own_second_factor_is_still_required(client: Client) -> None:
    there_and_back(invited())
    TOTP.activate(User.objects.get(), "JBSWY3DPEHPK3PXP")
    assert there_and_back(client)["Location"].startswith("/console/login/second-factor/")
    assert client.get("/console/").status_code == 302


def test_the_provider_can_require_its_own_second_factor(client: Client, settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    there_and_back(invited())
    there_and_back(client)
    assert client.get("/console/account/").status_code == client.get("/console/").status_code == 200


def test_a_person_with_a_password_can_connect_and_disconnect(client: Client) -> None:
    User.objects.create_user("maria", password=PASSWORD)
    client.post("/console/login/", {"username": "maria", "password": PASSWORD})
    assert client.get("/console/account/connect/")["Location"].startswith("/console/account/confirm/")
    client.post("/console/account/confirm/", {"password": PASSWORD})
    assert client.get("/console/account/connect/")["Location"] == f"{START}?process=connect"
    there_and_back(client, start=f"{START}?process=connect")
    assert SocialAccount.objects.get().user.username == "maria"
    assert done()[-1] == "provider.connect"
    other = Client()
    there_and_back(other)
    assert other.get("/console/account/").context["person"].username == "maria"
    assert client.post("/console/account/disconnect/").status_code == 302
    assert done()[-1] == "provider.disconnect"
    assert there_and_back(Client()).status_code == 403


def test_connecting_requires_the_password(client: Client) -> None:
    """Not even by opening the URL that leads to the provider."""
    User.objects.create_user("maria", password=PASSWORD)
    client.post("/console/login/", {"username": "maria", "password": PASSWORD})
    there_and_back(client, start=f"{START}?process=connect")
    assert not SocialAccount.objects.exists()


def test_a_person_without_a_password_cannot_lock_themselves_out(client: Client) -> None:
    client = invited()
    there_and_back(client)
    answer = client.post("/console/account/disconnect/")
    assert "could no longer log in" in text(answer)
    assert SocialAccount.objects.exists()
    refused = Entry.objects.filter(outcome="refused")
    assert list(refused.values_list("action", flat=True)) == ["provider.disconnect"]


def test_a_forged_or_old_response_signs_nobody_in(client: Client) -> None:
    there_and_back(invited())
    for query in ("", "?code=x", "?code=x&state=y", "?error=access_denied", "?state=%00&code=%00"):
        assert client.get(f"{START}callback/{query}").status_code in (302, 400, 401, 502), query
        assert client.get("/console/").status_code == 302
    away = client.get(START)["Location"]
    answer = httpx.post(away, data={"action": "deny"})
    back = urlsplit(answer.headers["Location"])
    client.get(f"{back.path}?{back.query}")
    assert client.get("/console/").status_code == 302


def test_a_response_belongs_to_the_browser_that_started(client: Client) -> None:
    away = client.get(START)["Location"]
    back = urlsplit(httpx.post(away, data={"sub": "sub-of-nina"}).headers["Location"])
    other = invited()
    other.get(f"{back.path}?{back.query}")
    assert not User.objects.exists()


def test_a_person_who_cancels_at_the_provider_is_back_at_the_login_page(client: Client) -> None:
    (state,) = parse_qs(urlsplit(client.get(START)["Location"]).query)["state"]
    cancelled = client.get(f"{START}callback/", {"error": "access_denied", "state": state})
    assert (cancelled.status_code, cancelled["Location"]) == (302, "/console/login/")


def test_an_inviter_who_lost_the_right_gives_no_account(client: Client) -> None:
    root = User.objects.create_superuser("root")
    roles = [{"environment": "staging", "role": "editor"}]
    made, token = actions.invite("Nina", actor=Actor.of_user(root), roles=roles, reason="new")
    client.get(f"/console/invitation/{token}/")
    User.objects.update(is_superuser=False)
    answer = there_and_back(client)
    assert answer.status_code == 410
    assert "root, who invited you, may no longer give these roles" in text(answer)
    assert list(User.objects.values_list("username", flat=True)) == ["root"]
    assert not SocialAccount.objects.exists()
    refused = Entry.objects.get(outcome="refused")
    assert (refused.action, refused.target_id) == ("invitation.accept", str(made.pk))


def test_an_account_at_the_company_belongs_to_one_person(client: Client) -> None:
    there_and_back(invited())
    User.objects.create_user("maria", password=PASSWORD)
    client.post("/console/login/", {"username": "maria", "password": PASSWORD})
    client.post("/console/account/confirm/", {"password": PASSWORD})
    there_and_back(client, start=f"{START}?process=connect")
    assert "That account is already connected" in text(client.get("/console/account/"))
    assert SocialAccount.objects.get().user.username == "nina"


def test_an_unreachable_provider_is_explained(client: Client, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = provider(f"http://localhost:{free_port()}")
    answer = client.get(START)
    assert answer.status_code == 502
    assert "could not be reached, or its answer was not valid" in text(answer)


def test_a_person_without_a_password_can_open_the_password_page(client: Client) -> None:
    client = invited()
    there_and_back(client)
    answer = client.get("/console/account/password/")
    assert (answer.status_code, answer["Location"]) == (302, "/console/account/password/set/")
    assert client.get(answer["Location"])["Location"] == "/console/account/"


# --- another issuer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_issuer() -> Iterator[str]:
    people = [oidc_provider_mock.User(sub="sub-of-nina", claims={"preferred_username": "mallory"})]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(params=["today", "before"])
def _nina(request: pytest.FixtureRequest, _company: None) -> None:
    """Nina joined: today, or with a version that stored only the `sub`."""
    there_and_back(invited())
    if request.param == "before":
        assert SocialAccount.objects.update(uid="sub-of-nina") == 1
    there_and_back(client := Client())
    assert client.get("/console/account/").context["person"].username == "nina"


@pytest.mark.usefixtures("_nina")
def test_the_same_sub_at_another_issuer_is_somebody_else(
    client: Client, other_issuer: str, settings: Any
) -> None:
    """A `sub` is unique only within its issuer (OpenID Connect Core 1.0, section 2)."""
    settings.SOCIALACCOUNT_PROVIDERS = provider(other_issuer)
    assert there_and_back(client).status_code == 403
    assert client.get("/console/").status_code == 302
    there_and_back(invited())
    assert sorted(User.objects.values_list("username", flat=True)) == ["mallory", "nina"]
    there_and_back(client)
    assert client.get("/console/account/").context["person"].username == "mallory"


@pytest.mark.usefixtures("_nina")
def test_people_keep_their_accounts_if_the_same_provider_moves(
    client: Client, issuer: str, other_issuer: str, settings: Any
) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = provider(other_issuer)
    settings.OIDC_FORMER_ISSUERS = [issuer]
    there_and_back(client)
    assert client.get("/console/account/").context["person"].username == "nina"
    assert SocialAccount.objects.count() == 1


def test_an_account_is_stored_with_its_issuer(issuer: str) -> None:
    there_and_back(invited())
    assert SocialAccount.objects.get().uid == f"{issuer} sub-of-nina"
    assert f"company {issuer} sub-of-nina" in str(
        json.loads(bytes(Entry.objects.get(action="provider.connect").body))
    )


def test_an_answer_about_two_people_signs_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user info must be about the person of the ID token (OpenID Connect Core 1.0, section 5.3.2)."""
    monkeypatch.setattr(OpenIDConnectOAuth2Adapter, "_fetch_user_info", lambda *_: {"sub": "the-boss"})
    assert there_and_back(invited()).status_code == 502
    assert not User.objects.exists() and not SocialAccount.objects.exists()


def test_a_long_issuer_and_sub_are_stored_as_a_hash() -> None:
    told = {"iss": "https://idp.example", "sub": "s" * 191}
    account = SocialAccount(provider="company", uid=told["sub"], extra_data={"id_token": told})
    assert (
        company.stored_id(account)
        == "sha256:" + hashlib.sha256(f"{told['iss']} {told['sub']}".encode()).hexdigest()
    )


def test_a_sub_that_is_too_long_is_explained() -> None:
    """allauth refuses more than 191 characters as a mistake of the settings."""
    assert there_and_back(invited(), "s" * 200).status_code == 502
    assert not User.objects.exists()


@pytest.mark.parametrize("told", [None, {}, {"iss": "", "sub": "s"}, {"iss": 7, "sub": "s"}, {"iss": "i"}])
def test_an_answer_without_an_issuer_identifies_nobody(told: Any) -> None:
    account = SocialAccount(provider="company", uid="s", extra_data={"id_token": told})
    with pytest.raises(OAuth2Error):
        company.stored_id(account)


def test_an_unknown_provider_is_not_found(client: Client) -> None:
    assert client.get("/console/login/with/another/").status_code == 404
