"""Invitations, the second factor, and what a role permits, in a real browser."""

from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.core.cache import cache
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PASSWORD, PATIENCE_MS
from tests.support import builders
from tests.support.people import actor_of, running

People = Callable[..., Page]
pytestmark = pytest.mark.django_db(transaction=True)


def code(secret: str) -> str:
    """Return the code that an authenticator app shows now."""
    return str(format_hotp_value(hotp_value(secret, int(timezone.now().timestamp()) // 30)))


def test_an_invited_person_sets_up_a_second_factor_and_uses_the_role(
    as_person: People, chromium: Browser, live_server: Any, transactional_db: None
) -> None:
    production = builders.environment("production")
    workload = builders.workload("summaries")
    builders.served(production, workload)
    builders.version(workload, actor=actor_of("maria"))
    rollout = running(workload, production)
    ada = as_person("ada", "admin")
    ada.click("nav >> text=People")
    ada.click("main a:has-text('Invite')")
    ada.fill("main [name=invited]", "Vera")
    ada.check("main input[value=viewer] >> nth=0")
    ada.fill("main [name=reason]", "she audits us")
    ada.click("button:has-text('Create the link')")
    link = ada.input_value("#link")

    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(PATIENCE_MS)
    vera = context.new_page()
    vera.goto(link)
    expect(vera.locator("main")).to_contain_text("ada invites you")
    vera.fill("[name=username]", "vera")
    for field in vera.locator("input[type=password]").all():
        field.fill(PASSWORD)
    vera.click("button:has-text('Create my account')")
    vera.wait_for_url(f"{live_server.url}/console/")
    expect(vera.locator("main")).to_contain_text("summaries: v1 → v2")
    secret = second_factor(vera, f"{live_server.url}/console/")

    vera.context.clear_cookies()
    cache.clear()  # the code of the set-up cannot be used again, and waiting for the next takes half a minute
    vera.goto(f"{live_server.url}/console/rollouts/{rollout.pk}/")
    vera.fill("#id_username", "vera")
    vera.fill("#id_password", PASSWORD)
    vera.click("button:has-text('Log in')")
    expect(vera.locator("h1")).to_have_text("Second factor")
    vera.fill("[name=code]", code(secret))
    vera.click("button:has-text('Log in') >> nth=0")
    # To the page she wanted; a viewer can see everything and change nothing.
    expect(vera.locator("#head")).to_contain_text("Roll back (needs the role operator in production)")
    assert vera.locator("#head a:has-text('Roll back')").count() == 0
    vera.goto(f"{vera.url}roll-back/")
    expect(vera.locator("main")).to_contain_text("This needs the role operator in production")
    vera.goto(link)
    expect(vera.locator("main")).to_contain_text("no longer valid")
    assert Authenticator.objects.filter(user__username="vera").count() == 2  # the app, the recovery codes
    context.close()


def second_factor(page: Page, home: str) -> str:
    """Set it up from the account's page. Return its key."""
    page.goto(f"{home}account/")
    page.click("a:has-text('Set up')")
    page.wait_for_selector("main :is(code, input[type=password])")  # the account's page has forms, too
    if page.locator("main input[type=password]").count():  # it asks for the password
        page.fill("main input[type=password]", PASSWORD)
        page.click("main button[type=submit]")
    secret = page.inner_text("main code")
    page.fill("main [name=code]", code(secret))
    page.click("main button[type=submit]")
    expect(page.locator("main")).to_contain_text("recovery codes", ignore_case=True)
    return secret
