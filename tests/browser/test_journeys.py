"""Complete journeys in a real browser: with a server outage, on a phone, with the keyboard."""

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from controlplane.access.models import Key
from controlplane.core.actors import SYSTEM
from policies_app.models import Environment, Model, Workload
from rollout_app import actions
from rollout_app.apps import _save_plans
from rollout_app.models import Rollout
from tests.browser.test_console import clicks, count_clicks, write, written
from tests.support import builders
from tests.support.people import actor_of, running

People = Callable[..., Page]
pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture
def summaries(transactional_db: None) -> Workload:
    _save_plans("default")
    production = builders.environment("production", four_eyes=True)
    workload = builders.workload("summaries")
    builders.served(production, workload)
    builders.version(workload, actor=actor_of("maria"))
    return workload


def moving(workload: Workload) -> Rollout:
    return running(workload, workload.assignments.get().environment)


def away(route: Route) -> None:
    route.fulfill(status=502, body="Bad gateway")


def test_a_server_outage_loses_no_input(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    page.click("#head >> text='Roll back'")
    page.fill("#sheet textarea[name=reason]", "the provider is down")
    page.route("**/rollouts/**", away)
    page.click("#sheet button:has-text('Roll back')")
    expect(page.locator("#sheet [role=alert]")).to_contain_text("Nothing that you typed is lost")
    assert page.input_value("#sheet textarea[name=reason]") == "the provider is down"
    expect(page.locator(".pm-stale")).to_contain_text("Not updated for")
    page.unroute("**/rollouts/**")
    expect(page.locator(".pm-stale")).to_have_count(0)
    page.click("#sheet button:has-text('Roll back')")
    expect(page.locator("#head .pm-badge")).to_have_text("rolling back")
    assert Rollout.objects.get().rollback_reason == "the provider is down"


def test_an_unresponsive_server_is_reported_and_a_late_answer_counts(
    as_person: People, summaries: Workload
) -> None:
    page = as_person("tom", "operator")
    rollout = moving(summaries)
    page.goto(f"{page.url}rollouts/{rollout.pk}/pause/")
    held: list[Route] = []
    page.clock.install()
    page.route("**/pause/", lambda route: held.append(route))
    page.fill("main textarea[name=reason]", "half an hour of thought")
    page.click("main button:has-text('Pause')")
    page.clock.fast_forward(11_000)
    expect(page.locator("main form [role=alert]")).to_contain_text("has not answered yet")
    assert page.input_value("main textarea[name=reason]") == "half an hour of thought"
    held[0].continue_()
    expect(page.locator("#head .pm-badge")).to_have_text("paused")


def test_a_refresh_keeps_the_focus_and_an_open_form(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    page.focus("#head a:has-text('What changes')")
    actions.pause_rollout(rollout, actor=SYSTEM, reason="wait")
    expect(page.locator("#head .pm-badge")).to_have_text("paused")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "What changes"


def test_a_lost_session_keeps_the_form(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/pause/")
    page.fill("main textarea[name=reason]", "half an hour of thought")
    page.context.clear_cookies()
    page.click("main button:has-text('Pause')")
    expect(page.locator("main form [role=alert]")).to_contain_text("You are signed out")
    assert page.input_value("main textarea[name=reason]") == "half an hour of thought"


def test_a_session_that_ends_while_the_page_polls_keeps_the_open_form(
    as_person: People, summaries: Workload
) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    home, session = page.url, [c for c in page.context.cookies() if c["name"] != "csrftoken"]
    page.goto(f"{home}rollouts/{rollout.pk}/")
    page.click("#head >> text='Pause'")
    page.fill("#sheet textarea[name=reason]", "half an hour of thought")
    page.context.clear_cookies(name=session[0]["name"])
    expect(page.locator("[data-signed-out]")).to_contain_text("what you typed stays here")
    assert page.input_value("#sheet textarea[name=reason]") == "half an hour of thought"
    page.context.add_cookies(session)  # type: ignore[arg-type]  # a login in another tab
    expect(page.locator("[data-signed-out]")).to_have_count(0)
    page.click("#sheet button:has-text('Pause')")
    expect(page.locator("#head .pm-badge")).to_have_text("paused")


def test_a_refused_form_keeps_its_text_when_the_session_ends(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    session = next(c["name"] for c in page.context.cookies() if c["name"] != "csrftoken")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    page.click("#head >> text='Pause'")
    page.fill("#sheet textarea[name=reason]", "half an hour of thought")
    actions.pause_rollout(rollout, actor=SYSTEM, reason="somebody was faster")
    page.click("#sheet button:has-text('Pause')")
    expect(page.locator("#sheet [role=alert]")).to_be_visible()
    page.context.clear_cookies(name=session)
    expect(page.locator("[data-signed-out]")).to_contain_text("what you typed stays here")
    assert page.input_value("#sheet textarea[name=reason]") == "half an hour of thought"


def test_another_page_in_place_of_a_poll_is_no_sign_of_life(as_person: People, summaries: Workload) -> None:
    """A proxy answers with its login page, with status 200."""
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    login = "<h1>Log in</h1>"
    page.route("**/rollouts/**", lambda route: route.fulfill(content_type="text/html", body=login))
    expect(page.locator(".pm-stale")).to_contain_text("another page answers in its place", timeout=40_000)


def test_a_double_click_sends_a_form_once(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    page.click("#head >> text='Pause'")
    page.fill("#sheet textarea[name=reason]", "half an hour of thought")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)

    def later(route: Route) -> None:
        time.sleep(2)  # the second click comes after the answer and before the next page
        route.continue_()

    page.route(f"**/rollouts/{rollout.pk}/", later)
    page.evaluate("""() => {
        const button = [...document.querySelectorAll("#sheet button")].find((b) => b.textContent.includes("Pause"));
        button.click();
        setTimeout(() => button.click(), 1_000);
    }""")
    expect(page.locator("#head .pm-badge")).to_have_text("paused", timeout=20_000)
    assert len(sent) == 1


def test_every_page_can_be_read_without_scripts(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    home, state = page.url, page.context.storage_state()
    assert page.context.browser is not None
    bare = page.context.browser.new_context(java_script_enabled=False)
    entrance = bare.new_page()
    entrance.goto(home)
    expect(entrance.locator("#id_username")).to_be_visible()
    bare.add_cookies(state["cookies"])  # type: ignore[arg-type]
    entrance.goto(f"{home}rollouts/{rollout.pk}/")
    entrance.click("#head >> text='Pause'")
    entrance.fill("main textarea[name=reason]", "no scripts here")
    entrance.click("main button:has-text('Pause')")
    expect(entrance.locator("#head .pm-badge")).to_have_text("paused")
    bare.close()


def test_a_model_is_pinned_and_unpinned_on_a_phone(as_person: People, summaries: Workload) -> None:
    page = as_person("tom", "operator", **PHONE)
    page.goto(f"{page.url}workloads/")
    count_clicks(page)
    page.tap("main a:text-is('summaries')")
    page.tap("text=Pin a model")
    page.select_option("select[name=model_alias]", "large")
    page.fill("textarea[name=reason]", "incident 231")
    page.tap("button:has-text('Pin it')")
    expect(page.locator("main")).to_contain_text("Pinned because: incident 231")
    assert clicks(page) == 3, "from the list of workloads"
    assert summaries.assignments.get().pin_model == "large"
    page.tap("text=Unpin")
    page.fill("textarea[name=reason]", "over")
    page.tap("button:has-text('Unpin it')")
    expect(page.locator("main")).not_to_contain_text("incident 231")


def test_a_rollback_works_with_the_keyboard_alone(as_person: People, summaries: Workload) -> None:
    rollout = moving(summaries)
    page = as_person("tom", "operator")
    page.goto(f"{page.url}rollouts/{rollout.pk}/")
    count_clicks(page)
    tab_to(page, "Roll back")
    page.keyboard.press("Enter")
    page.wait_for_selector("#sheet textarea[name=reason]")
    page.wait_for_function("document.activeElement.name === 'reason'")
    page.keyboard.type("the provider is down")
    tab_to(page, "Roll back")
    page.keyboard.press("Enter")
    expect(page.locator("#head .pm-badge")).to_have_text("rolling back")
    assert clicks(page) == 2


def test_the_menus_work_with_the_keyboard_alone(as_person: People, summaries: Workload) -> None:
    page = as_person("tom", "operator", **PHONE)
    page.goto(f"{page.url}workloads/")
    toggle = page.get_by_role("button", name="Show or hide the navigation")
    toggle.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.closest('#nav-sidebar-inner')")
    tab_to(page, page.locator(".pm-account > summary").text_content().strip())  # type: ignore[union-attr]
    page.keyboard.press("Enter")
    tab_to(page, "Your account")
    page.keyboard.press("Escape")
    expect(page.locator(".pm-account > summary")).to_be_focused()
    expect(page.get_by_role("link", name="Your account")).not_to_be_visible()
    page.keyboard.press("Escape")
    expect(toggle).to_be_focused()
    expect(toggle).to_have_attribute("aria-expanded", "false")


def tab_to(page: Page, label: str) -> None:
    """Press Tab until the element with this text has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == label:
            return
    raise AssertionError(f"no {label!r} within 60 tabs")


def test_the_editor_marks_problems_while_typing_and_keeps_a_draft(
    as_person: People, summaries: Workload
) -> None:
    page = as_person("maria", "editor", team=summaries.owner)
    page.goto(f"{page.url}workloads/summaries/versions/new/")
    write(page, written(page).replace("default: small", "default: smal"))
    expect(page.locator(".ace_gutter-cell.ace_error, .ace_error.ace_gutter-cell")).to_have_count(1)
    expect(page.locator("#checked")).to_contain_text('did you mean "small"?')
    page.reload()
    expect(page.locator("[data-restored]")).to_be_visible()
    assert "default: smal\n" in written(page)
    page.click("text=Discard it")
    assert "default: small" in written(page)


def test_the_first_steps_lead_to_a_guarded_rollout(as_person: People, transactional_db: None) -> None:
    _save_plans("default")
    team = builders.team("support")
    page = as_person("ada", "admin", team=team)
    home = page.url
    next_step(page)
    fill(page, "Register it", name="production", poll_interval_ms="1000")
    for name, price in (("openai/gpt-4o-mini", "0.15"), ("anthropic/claude-sonnet-4-5", "3")):
        page.goto(home)
        next_step(page)
        fill(
            page,
            "Add it",
            name=name,
            input_nusd_per_mtok=price,
            output_nusd_per_mtok=price,
            context_window="128000",
        )
    page.goto(home)
    next_step(page)
    fill(page, "Register it", name="tickets", task_type="summary", quality_bar="0.9")
    page.goto(home)
    next_step(page)
    written(page)
    page.click("text=Save as a new version")
    expect(page.locator("main h1")).to_have_text("tickets v1")
    page.goto(home)
    next_step(page)
    page.check("input[name=break_glass]")  # a new environment requires four eyes
    page.fill("textarea[name=reason]", "the first version")
    page.click("main button[type=submit]")
    expect(page.locator("main h1")).to_have_text("tickets")
    page.goto(home)
    next_step(page)
    page.fill("main [name=label]", "the gateway")
    page.click("main button:has-text('Issue it')")
    expect(page.locator("#key-text")).to_contain_text("pmr_production_")
    assert (Environment.objects.count(), Model.objects.count(), Key.objects.count()) == (1, 2, 1)
    builders.version(Workload.objects.get(), actor=actor_of("ada"))
    page.goto(f"{home}rollouts/propose/?workload=tickets")
    page.fill("textarea[name=reason]", "cheaper")
    page.click("button:has-text('Propose')")
    expect(page.locator("#head")).to_contain_text("tickets: v1 → v2")
    assert Rollout.objects.get().guardrails


def next_step(page: Page) -> None:
    page.click("text=Do this next")


def fill(page: Page, button: str, **values: str) -> None:
    """Fill in the form and submit it; it leads to another page."""
    for name, value in values.items():
        page.fill(f"main [name={name}]", value)
    sent_from = page.url
    page.click(f"main button:has-text('{button}')")
    page.wait_for_url(lambda url: url != sent_from)


def test_the_log_is_verified_on_the_page_and_names_unrecorded_rows(
    as_person: People, summaries: Workload
) -> None:
    """The tests create the team without an entry in the log, so this is what verification must find."""
    page = as_person("ada", "viewer")
    page.goto(f"{page.url}audit/")
    page.click("main a:has-text('Verify')")
    page.click("button:has-text('Verify now')")
    expect(page.locator("main")).to_contain_text("has been altered")
    expect(page.locator("main")).to_contain_text(f"team {summaries.owner.name}")


TASKS = "\n".join(
    [
        "prompt_tokens,openai/gpt-4o-mini:success,openai/gpt-4o-mini:cost_usd,"
        "anthropic/claude-sonnet-4-5:success,anthropic/claude-sonnet-4-5:cost_usd",
        *(f"{n * 100},{int(n % 20 > 0)},0.001,1,0.01" for n in range(1, 101)),
    ]
)


def test_a_backtest_leads_to_a_proposal(as_person: People, summaries: Workload) -> None:
    page = as_person("maria", "editor", team=summaries.owner)
    page.goto(f"{page.url}workloads/summaries/")
    page.click("main a:has-text('Backtest')")
    page.set_input_files(
        "main input[name=file]", {"name": "tasks.csv", "mimeType": "text/csv", "buffer": TASKS.encode()}
    )
    page.click("button:has-text('Run the backtest')")
    expect(page.locator("main")).to_contain_text("100 tasks read, 100 compared")
    expect(page.locator("main")).to_contain_text("meets the bar of 90.0")
    page.click("main a:has-text('Propose a rollout')")
    page.fill("textarea[name=reason]", "the backtest: within the bar, at a tenth of the cost")
    page.click("button:has-text('Propose')")
    expect(page.locator("#head")).to_contain_text("summaries: v1 → v2")
    assert Rollout.objects.get().reason.startswith("the backtest")


def test_a_text_is_tried_next_to_the_editor_before_it_is_saved(
    as_person: People, summaries: Workload
) -> None:
    page = as_person("maria", "editor", team=summaries.owner)
    page.goto(f"{page.url}workloads/summaries/versions/new/")
    write(page, re.sub(r"prompt_tokens > \d+", "prompt_tokens > 3", written(page)))
    page.click("summary:has-text('Playground')")
    page.fill("#playground_request", '{"prompt_tokens": 5}')
    page.click("button:has-text('Decide')")
    expect(page.locator("#tried-playground")).to_contain_text("draft")
    expect(page.locator("#tried-playground")).to_contain_text("rule heavy matches")
    page.click("summary:has-text('Backtest')")
    page.click("button:has-text('Run the backtest')")
    expect(page.locator("#tried-backtest [role=alert]")).to_contain_text("Choose a file")
    page.set_input_files(
        "#backtest_file", {"name": "tasks.csv", "mimeType": "text/csv", "buffer": TASKS.encode()}
    )
    page.route("**/backtest/", away)
    page.click("button:has-text('Run the backtest')")
    expect(page.locator("#tried-backtest")).to_contain_text("Nothing that you typed is lost")
    page.unroute("**/backtest/")
    page.click("button:has-text('Run the backtest')")
    expect(page.locator("#tried-backtest")).to_contain_text("100 tasks read, 100 compared")
    drawn = page.locator("#tried-backtest canvas")
    expect(drawn).to_have_attribute("width", re.compile(r"\d{3}"))
    assert "prompt_tokens > 3" in written(page)
    assert summaries.versions.count() == 2, "nothing was kept"
