"""The path of a promotion through the console, by two people, in a real browser."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from controlplane.core.actors import SYSTEM
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.people import actor_of, running

People = Callable[..., Page]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def summaries(transactional_db: None) -> Workload:
    from rollout_app.apps import _save_plans

    _save_plans("default")  # an emptied database has lost them
    production = builders.environment("production", four_eyes=True)
    workload = builders.workload("summaries")
    builders.served(production, workload)
    return workload


def test_two_people_promote_a_version_and_one_takes_it_back(as_person: People, summaries: Workload) -> None:
    maria = as_person("maria", "editor", team=summaries.owner)
    maria.click("nav >> text=Workloads")
    maria.click("main a:has-text('summaries'), td a:has-text('summaries')")
    maria.click("text=New version")
    text = written(maria)
    write(maria, text.replace("default: small", "default: smal"))
    maria.click("text=Save as a new version")
    expect(maria.locator(".pm-problems")).to_contain_text('did you mean "small"?')
    write(maria, re.sub(r"prompt_tokens > \d+", "prompt_tokens > 7000", text))
    maria.fill("input[name=note]", "seven thousand")
    maria.click("text=Save as a new version")
    expect(maria.locator("h1")).to_have_text("summaries v2")
    maria.click("text=Propose a rollout")
    maria.fill("textarea[name=reason]", "long prompts fail on small")
    maria.click("button:has-text('Propose')")
    expect(maria.locator("#head")).to_contain_text("awaiting approval")
    expect(maria.locator("#head")).to_contain_text("needs the role approver in production")

    tom = as_person("tom", "approver", "operator")
    expect(tom.locator("h1")).to_have_text("1 rollout waits for you")
    tom.locator("a:has-text('Review'):not(nav a)").last.click()
    decide(tom, "Approve", "the backtest agrees")
    expect(tom.locator("#head .pm-badge")).to_have_text("scheduled")
    decide(tom, "Start", "on call until six")
    expect(tom.locator("#head .pm-badge")).to_have_text("running")
    decide(tom, "Roll back", "the provider is down")
    expect(tom.locator("#head .pm-badge")).to_have_text("rolling back")
    expect(tom.locator("#live")).to_contain_text("the provider is down")
    assert Rollout.objects.get().rollback_reason == "the provider is down"
    assert summaries.assignments.get().candidate is None


EDITOR = "document.querySelector('.django-ace-widget').editor"


def written(page: Page) -> str:
    """What is in the editor."""
    page.wait_for_selector(".ace_content")
    return str(page.evaluate(f"{EDITOR}.getValue()"))


def write(page: Page, policy: str) -> None:
    page.wait_for_selector(".ace_content")
    page.evaluate(f"text => {EDITOR}.setValue(text)", policy)


def decide(page: Page, button: str, reason: str) -> None:
    """The button opens its form in the page; the form is sent."""
    page.click(f"#head >> text='{button}'")
    page.fill("#sheet textarea[name=reason]", reason)
    page.click(f"#sheet button:has-text('{button}')")
    page.wait_for_load_state()


def test_the_page_follows_the_rollout_and_keeps_what_one_types(
    as_person: People, summaries: Workload
) -> None:
    builders.version(summaries, actor=actor_of("maria"))
    rollout = running(summaries, summaries.assignments.get().environment)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    page.click("#head >> text='Pause'")
    page.fill("#sheet textarea[name=reason]", "half a sentence")
    actions.advance_rollout(rollout, actor=SYSTEM, reason="every guardrail is safe")
    expect(page.locator("#live")).to_contain_text("every guardrail is safe")
    expect(page.locator("#live [aria-current=step]")).to_contain_text("full")
    assert page.input_value("#sheet textarea[name=reason]") == "half a sentence"
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="it hurts")
    expect(page.locator("#head .pm-badge")).to_have_text("rolling back")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 800), ("light", 390)])
def test_no_page_overflows(as_person: People, summaries: Workload, scheme: str, width: int) -> None:
    builders.version(summaries, actor=actor_of("maria"))
    rollout = running(summaries, summaries.assignments.get().environment)
    viewport = {"width": width, "height": 900}
    page = as_person("tom", "admin", viewport=viewport, color_scheme=scheme)
    home = page.url
    for path in (
        "", "workloads/", "workloads/summaries/", "workloads/summaries/versions/new/",
        "workloads/summaries/versions/1/", "workloads/summaries/diff/?before=1&after=2",
        "workloads/summaries/production/pin/", "rollouts/", f"rollouts/{rollout.pk}/",
        "rollouts/propose/?workload=summaries", "fleet/", "audit/", "audit/1/",
    ):  # fmt: skip
        page.goto(home + path)
        page.wait_for_selector(".pm-page h1, .pm-page h2")
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, f"{path} is {beyond} px too wide at {width} px"
