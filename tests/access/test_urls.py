"""Every page and resource of access control has its address, under the name by which others link to it.

Bookmarks, e-mails and scripts hold the addresses; django-allauth looks up the names of the sign-in pages.
"""

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import User
from django.test import Client
from django.urls import resolve, reverse

from tests.support.pages import text
from tests.support.people import logged_in

PASSWORD = "a long enough word"
UUID = "01890000-0000-7000-8000-000000000000"
SIGN_IN: list[tuple[str, list[Any], str]] = [
    ("account_login", [], "login/"),
    ("mfa_authenticate", [], "login/second-factor/"),
    ("mfa_login_webauthn", [], "login/passkey/"),
    ("openid_connect_login", ["company"], "login/with/company/"),
    ("openid_connect_callback", ["company"], "login/with/company/callback/"),
    ("socialaccount_login_cancelled", [], "login/cancelled/"),
    ("socialaccount_login_error", [], "login/error/"),
    ("socialaccount_signup", [], "login/signup/"),
    ("connect_company", [], "account/connect/"),
    ("disconnect_company", [], "account/disconnect/"),
    ("socialaccount_connections", [], "account/connections/"),
    ("account_logout", [], "logout/"),
    ("account_inactive", [], "account/inactive/"),
    ("account_change_password", [], "account/password/"),
    ("account_reauthenticate", [], "account/confirm/"),
    ("mfa_reauthenticate", [], "account/confirm-code/"),
    ("mfa_reauthenticate_webauthn", [], "account/confirm-passkey/"),
    ("mfa_list_webauthn", [], "account/passkeys/"),
    ("mfa_add_webauthn", [], "account/passkeys/add/"),
    ("mfa_remove_webauthn", [7], "account/passkeys/7/remove/"),
    ("mfa_activate_totp", [], "account/totp/on/"),
    ("mfa_deactivate_totp", [], "account/totp/off/"),
    ("mfa_view_recovery_codes", [], "account/recovery-codes/"),
    ("mfa_generate_recovery_codes", [], "account/recovery-codes/new/"),
    ("mfa_index", [], "account/second-factor/"),
    ("accept_invitation", [], "invitation/"),
    ("invitation", ["a-token"], "invitation/a-token/"),
]
PEOPLE: list[tuple[str, list[Any], str]] = [
    ("account", [], "account/"),
    ("people", [], "people/"),
    ("invite", [], "people/invite/"),
    ("revoke_invitation", [UUID], f"people/invitations/{UUID}/revoke/"),
    ("withdraw_role", [7], "people/roles/7/withdraw/"),
    ("person", [7], "people/7/"),
    ("change_person", [7, "deactivate"], "people/7/deactivate/"),
    ("teams", [], "teams/"),
    ("team", ["support"], "teams/support/"),
]
API: list[tuple[str, list[Any], str]] = [
    ("keys", [], "keys"),
    ("key-revoke", ["K1"], "keys/K1/revoke"),
    ("key-rotate", ["K1"], "keys/K1/rotate"),
    ("memberships", [], "memberships"),
    ("membership-requests", [], "membership-requests"),
    ("membership", [7], "memberships/7"),
    ("teams", [], "teams"),
    ("team", ["support"], "teams/support"),
    ("people", [], "people"),
    ("person", [7], "people/7"),
    ("person-deactivate", [7], "people/7/deactivate"),
    ("person-activate", [7], "people/7/activate"),
    ("person-end-sessions", [7], "people/7/end-sessions"),
    ("person-remove-second-factor", [7], "people/7/remove-second-factor"),
    ("person-withdraw-superuser", [7], "people/7/withdraw-superuser"),
    ("invitations", [], "invitations"),
    ("invitation-revoke", [UUID], f"invitations/{UUID}/revoke"),
]
ADDRESSES = [
    *((name, args, f"/console/{path}") for name, args, path in SIGN_IN),
    *((f"console:{name}", args, f"/console/{path}") for name, args, path in PEOPLE),
    *((f"api:{name}", args, f"/api/v1/{path}") for name, args, path in API),
]


@pytest.mark.parametrize(("name", "args", "address"), ADDRESSES, ids=[name for name, *_ in ADDRESSES])
def test_each_name_has_its_address(name: str, args: list[Any], address: str) -> None:
    assert reverse(name, args=args) == address
    assert resolve(address).view_name == name


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("login/cancelled/", "login/"),
        ("login/error/", "login/"),
        ("login/signup/", "login/"),
        ("account/connections/", "account/"),
        ("account/passkeys/", "account/"),
        ("account/second-factor/", "account/"),
        ("password_change/", "account/password/"),
    ],
)
def test_pages_that_we_do_not_have_lead_to_those_that_we_have(path: str, target: str) -> None:
    assert logged_in("ann", "viewer").get(f"/console/{path}")["Location"] == f"/console/{target}"


@pytest.fixture
def maria(client: Client) -> User:
    """She has a password and an authenticator app, and has just confirmed that it is her."""
    user = User.objects.create_user("maria", password=PASSWORD)
    client.force_login(user)
    client.post("/console/account/confirm/", {"password": PASSWORD})
    TOTP.activate(user, "JBSWY3DPEHPK3PXP")
    return user


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "title", "button", "danger"),
    [
        ("account/password/", "Change your password", "Change password", False),
        ("account/totp/off/", "Turn the authenticator app off", "Turn off", True),
        ("account/recovery-codes/new/", "New recovery codes", "Create new codes", False),
        ("account/passkeys/{passkey}/remove/", "Remove the passkey my laptop", "Remove", True),
        ("account/passkeys/add/", "Add a passkey", "Add", False),
        ("account/disconnect/", "Disconnect your company&#x27;s account", "Disconnect", True),
    ],
)
def test_each_change_of_ones_own_account_has_a_page(
    client: Client, maria: User, path: str, title: str, button: str, danger: bool
) -> None:
    if "{passkey}" in path:
        passkey = Authenticator.objects.create(user=maria, type="webauthn", data={"name": "my laptop"})
        path = path.format(passkey=passkey.pk)
    page = client.get(f"/console/{path}")
    assert page.status_code == 200
    assert f"<h1>{title}</h1>" in text(page)
    assert page.context["title"] == page.context["heading"] == title.replace("&#x27;", "'")
    assert page.context["button"] == button and button in text(page)
    assert len(page.context["about"].split()) >= 4, "it says what follows"
    assert (page.context["danger"], "pm-danger" in text(page)) == (danger, danger)
    assert page.context["back"] == "/console/account/"
    assert page.context["crumbs"] == [("Your account", "/console/account/")]
    for method, status in (("head", 200), ("options", 200), ("put", 405), ("delete", 405)):
        assert getattr(client, method)(page.request["PATH_INFO"]).status_code == status, method


@pytest.mark.django_db
def test_other_pages_of_ones_own_account_open(client: Client, maria: User) -> None:
    for path in ("account/", "account/confirm/", "account/confirm-code/", "logout/"):
        assert client.get(f"/console/{path}").status_code == 200, path
