"""A promotion through the console, by two people, in a real browser."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.fleet.readback import ON_RECORD_AFTER
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.evaluation import reconcile
from rollout_app.models import Plan, Rollout
from tests.support import builders, places
from tests.support.people import actor_of, running
from tests.support.traffic import Traffic

People = Callable[..., Page]
pytestmark = pytest.mark.django_db(transaction=True)


PLAN = [{"mode": "percentage", "share_pcm": 20_000, "min_tasks": 50}, {"mode": "full"}]


@pytest.fixture
def summaries(transactional_db: None) -> Workload:
    from rollout_app.apps import _save_plans

    _save_plans("default")  # an emptied database has none
    Plan.objects.filter(name="standard").update(stages=PLAN)  # without the hours that its stages take
    production = builders.environment("production", four_eyes=True)
    workload = builders.workload("summaries")
    builders.served(production, workload)
    return workload


def test_a_harmful_version_is_approved_started_and_rolled_back_automatically(
    as_person: People, summaries: Workload
) -> None:
    """From home to a proposal in five clicks; every problem is shown before anything is saved."""
    maria = as_person("maria", "editor", team=summaries.owner)
    count_clicks(maria)
    maria.click("nav >> text=Workloads")
    maria.click("main a:has-text('summaries'), td a:has-text('summaries')")
    maria.click("text=New version")
    text = written(maria)
    write(maria, text.replace("default: small", "default: smal"))
    expect(maria.locator("#checked")).to_contain_text('did you mean "small"?')
    write(maria, re.sub(r"prompt_tokens > \d+", "prompt_tokens > 7000", text))
    expect(maria.locator("#checked")).not_to_contain_text("did you mean")
    maria.fill("input[name=note]", "seven thousand")
    maria.click("text=Save and propose a rollout")
    expect(maria.locator("main")).to_contain_text("v2 — seven thousand")
    maria.fill("textarea[name=reason]", "long prompts fail on small")
    maria.click("button:has-text('Propose')")
    expect(maria.locator("#head")).to_contain_text("awaiting approval")
    expect(maria.locator("#head")).to_contain_text("needs the role approver in production")
    assert clicks(maria) == 5

    tom = as_person("tom", "approver", "operator")
    expect(tom.locator("h1")).to_have_text("1 rollout waits for you")
    tom.locator("a:has-text('Review'):not(nav a)").last.click()
    decide(tom, "Approve", "the backtest agrees")
    expect(tom.locator("#head .pm-badge")).to_have_text("scheduled")
    traffic = Traffic(Rollout.objects.get(), start=clock.now() - timedelta(hours=2)).before()
    decide(tom, "Start", "on call until six")
    expect(tom.locator("#head .pm-badge")).to_have_text("running")
    goes_back_while_one_looks(tom, traffic)
    assert summaries.assignments.get().candidate is None


def goes_back_while_one_looks(page: Page, traffic: Traffic) -> None:
    """The candidate fails half of its tasks. The engine notices, and the page shows it without a click."""
    rollout = Rollout.objects.get()
    places.listening()
    places.router(rollout)
    traffic.minutes(6, candidate=0.5)
    assert reconcile.reconcile(rollout.pk) == "roll_back"
    expect(page.locator("#head .pm-badge")).to_have_text("rolling back")
    reconcile.reconcile(rollout.pk)  # the router has not polled yet
    expect(page.locator("#live")).to_contain_text("0 of 1 router confirmed")
    places.router(rollout)  # it polls, and has the baseline
    assert reconcile.reconcile(rollout.pk, now=clock.now() + ON_RECORD_AFTER) == "confirm"
    expect(page.locator("#head .pm-badge")).to_have_text("rolled back")
    expect(page.locator("#live")).to_contain_text("Failures +")
    expect(page.locator("#live")).to_contain_text("Version 1 is served again; 1 of 1 router confirmed it")


COUNTER = """addEventListener("click", (event) => {
  if (event.isTrusted) sessionStorage.clicks = Number(sessionStorage.clicks || 0) + 1;
}, true)"""


def count_clicks(page: Page) -> None:
    """Count clicks from now on, over all pages of this tab."""
    page.add_init_script(COUNTER)
    page.evaluate(COUNTER)


def clicks(page: Page) -> int:
    return int(page.evaluate("Number(sessionStorage.clicks)"))


EDITOR = "document.querySelector('.django-ace-widget').editor"


def written(page: Page) -> str:
    """Return the text in the editor."""
    page.wait_for_selector(".ace_content")
    return str(page.evaluate(f"{EDITOR}.getValue()"))


def write(page: Page, policy: str) -> None:
    page.wait_for_selector(".ace_content")
    page.evaluate(f"text => {EDITOR}.setValue(text)", policy)


def decide(page: Page, button: str, reason: str) -> None:
    """Click the button, which opens its form in the page, and submit the form."""
    page.click(f"#head >> text='{button}'")
    page.fill("#sheet textarea[name=reason]", reason)
    page.click(f"#sheet button:has-text('{button}')")
    page.wait_for_load_state()


def test_the_page_follows_the_rollout_and_keeps_the_input(as_person: People, summaries: Workload) -> None:
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
