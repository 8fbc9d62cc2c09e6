"""A passkey in a real Chromium with a virtual authenticator: added, used after the password, used alone."""

from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from controlplane.audit.models import Entry
from tests.browser.conftest import PASSWORD

People = Callable[..., Page]
pytestmark = pytest.mark.django_db(transaction=True)
DEVICE = {
    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
    "isUserVerified": True, "automaticPresenceSimulation": True,
}  # fmt: skip


def broken(page: Page) -> list[str]:
    return [f"{rule['id']} at {page.url}" for rule in Axe().run(page).response["violations"]]


def test_a_passkey_is_added_and_logs_in_after_the_password_and_alone(
    as_person: People, live_server: Any, transactional_db: None
) -> None:
    page = as_person("ada", "admin")
    home = f"{live_server.url}/console/"
    device = page.context.new_cdp_session(page)
    device.send("WebAuthn.enable")
    made = device.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})["authenticatorId"]

    page.goto(f"{home}account/")
    page.click("li:has-text('Passkey') >> text=Add")
    page.fill("main input[type=password]", PASSWORD)
    page.click("main button[type=submit]")
    page.fill("main [name=name]", "my laptop")
    wrong = broken(page)
    page.click("main button:has-text('Add')")
    expect(page.locator("main")).to_contain_text("recovery codes", ignore_case=True)
    page.goto(f"{home}account/")
    expect(page.locator("main")).to_contain_text("my laptop")
    wrong += broken(page)

    page.context.clear_cookies()
    page.goto(f"{home}audit/")
    page.fill("#id_username", "ada")
    page.fill("#id_password", PASSWORD)
    page.click("button:has-text('Log in') >> nth=0")
    expect(page.locator("h1")).to_have_text("Second factor")
    wrong += broken(page)
    page.click("button:has-text('Use a passkey')")
    page.wait_for_url(f"{home}audit/")

    page.context.clear_cookies()
    page.goto(f"{home}audit/")
    page.click("button:has-text('Log in with a passkey')")
    page.wait_for_url(f"{home}audit/")

    page.context.clear_cookies()
    device.send("WebAuthn.setUserVerified", {"authenticatorId": made, "isUserVerified": False})
    page.goto(home)
    page.click("button:has-text('Log in with a passkey')")
    expect(page.locator("[data-passkey-note]")).to_contain_text("No passkey was used")
    wrong += broken(page)
    assert wrong == []
    assert Authenticator.objects.filter(user__username="ada", type="webauthn").exists()
    begun = Entry.objects.filter(action="session.begin", outcome="done").order_by("seq")
    assert [bytes(entry.body).count(b'"webauthn"') for entry in begun] == [0, 1, 1]
