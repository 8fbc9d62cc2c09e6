"""axe-core on every page of the console, light and dark, on a desktop and a phone; and no page is too wide."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver
from playwright.sync_api import Page

from controlplane.access.actions import issue_key
from controlplane.access.models import Membership
from controlplane.core.actors import SYSTEM
from controlplane.notifications.actions import add_receiver
from policies_app import actions as policies
from policies_app.four_eyes.actions import request_four_eyes_off
from rollout_app import actions
from rollout_app.apps import _save_plans
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.people import actor_of, proposed, running

People = Callable[..., Page]
pytestmark = pytest.mark.django_db(transaction=True)
DESK, PHONE = 1440, 360  # px wide
PARTS = 4  # of the list of pages, so that no test takes long

# Not pages: they respond to a script or a form, send a file, or redirect. Also Django's own pages.
NOT_PAGES = {
    "audit_export", "check_version", "draw_plan", "rehearse_margin", "rollout_figures", "spend", "approve_change",
    "reject_change", "withdraw_change", "write_models", "test_receiver", "send_again",
}  # fmt: skip
DJANGOS = {
    "app_list", "autocomplete", "jsi18n", "login", "logout", "password_change", "password_change_done", "search",
    "toggle_sidebar", "view_on_site",
}  # fmt: skip


@pytest.fixture
def town(transactional_db: None) -> dict[str, Any]:
    """One of every kind of object that a page shows: the arguments of URLs by name."""
    _save_plans("default")
    production = builders.environment("production", four_eyes=True)
    workloads = {name: builders.workload(name) for name in ("summaries", "tickets", "triage")}
    for workload in workloads.values():
        builders.served(production, workload)
        builders.version(workload, actor=actor_of("maria"))
    rollout = running(workloads["summaries"], production)
    back = running(workloads["tickets"], production)
    actions.roll_back_rollout(back, actor=SYSTEM, reason="failures +6 points")
    proposed(workloads["triage"], production)
    policies.pin(workloads["triage"].assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    key, _ = issue_key("router", "production", "the gateway", actor=SYSTEM)
    ann = User.objects.create(username="ann")
    role = Membership.objects.create(user=ann, environment="production", role="viewer")
    change = request_four_eyes_off(production, actor=actor_of("maria"), reason="a test")
    town = {"rollout": rollout, "key": key.key_id, "workload": workloads["summaries"], "back": back}
    receiver, _ = add_receiver("ops", "webhook", "https://hooks.example/pointsman", actor=SYSTEM)
    return town | {"ann": ann.pk, "role": role.pk, "change": change.pk, "receiver": receiver.pk}


def addresses(town: dict[str, Any], *, known: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Yield (name, URL) of every page: those without arguments, and those in `known` with theirs."""
    for pattern in _patterns(get_resolver().url_patterns):
        name = pattern.name or ""
        if name in NOT_PAGES | DJANGOS:
            continue
        route = str(pattern.pattern)
        for address in known.get(name, [] if "<" in route else [route]):
            yield name, address


def _patterns(found: list[Any], inside: bool = False) -> Iterator[URLPattern]:
    """The console's own."""
    for each in found:
        if isinstance(each, URLResolver):
            yield from _patterns(each.url_patterns, inside or each.namespace == "console")
        elif inside:
            yield each


def filled(town: dict[str, Any]) -> dict[str, list[str]]:
    rollout, key = town["rollout"].pk, town["key"]
    ours, place = "workloads/summaries", "workloads/tickets/production"
    return {
        "workload": [f"{ours}/", "workloads/triage/"],
        "edit_workload": [f"{ours}/edit/"],
        "new_version": [f"{ours}/versions/new/"],
        "version": [f"{ours}/versions/1/"],
        "backtest": [f"{ours}/backtest/"],
        "playground": [f"{ours}/playground/"],
        "diff": [f"{ours}/diff/?before=1&after=2"],
        "serve": [f"{place}/serve/"],
        "pin": [f"{place}/pin/"],
        "unpin": ["workloads/triage/production/unpin/"],
        "stop": [f"{place}/stop/"],
        "margins": [f"{ours}/guardrails/"],
        "edit_margin": [f"{ours}/guardrails/failure/"],
        "reset_margin": [f"{ours}/guardrails/failure/reset/"],
        "edit_environment": ["environments/production/edit/"],
        "freeze": ["environments/production/freeze/"],
        "thaw": ["environments/production/thaw/"],
        "four_eyes_off": ["environments/production/four-eyes-off/"],
        "edit_model": ["models/openai/gpt-4o-mini/edit/"],
        "edit_plan": ["plans/standard/edit/"],
        "remove_plan": ["plans/standard/remove/"],
        "rotate_key": [f"keys/{key}/rotate/"],
        "revoke_key": [f"keys/{key}/revoke/"],
        "fleet_of": ["fleet/production/"],
        "review_of": ["review/production/"],
        "workload_review": ["review/production/summaries/"],
        "rollout_review": [f"rollouts/{rollout}/review/"],
        "blast_radius": [f"rollouts/{rollout}/blast-radius/"],
        "rollout": [f"rollouts/{rollout}/", f"rollouts/{town['back'].pk}/"],
        "act": [f"rollouts/{rollout}/roll-back/"],
        "propose": ["rollouts/propose/", "rollouts/propose/?workload=tickets"],
        "entry": ["audit/1/"],
        "person": [f"people/{town['ann']}/"],
        "withdraw_role": [f"people/roles/{town['role']}/withdraw/"],
        "team": [f"teams/{town['workload'].owner.name}/"],
        "change": [f"changes/{town['change']}/"],
        "receiver": [f"notifications/{town['receiver']}/"],
        "rotate_receiver": [f"notifications/{town['receiver']}/rotate/"],
    }


def _broken(page: Page, name: str) -> list[str]:
    """Return the problems of the current page: violated rules of axe, and whether it is too wide."""
    page.wait_for_selector("main h1")
    found = Axe().run(page).response["violations"]
    wrong = [f"{name}: {rule['id']} at {node['target']}" for rule in found for node in rule["nodes"]]
    beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wrong + ([f"{name}: {beyond} px too wide"] if beyond > 0 else [])


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_axe(
    as_person: People, town: dict[str, Any], scheme: str, part: int
) -> None:
    page = as_person("ada", "admin", team=town["workload"].owner, color_scheme=scheme)
    home = page.url
    wrong = []
    for name, address in list(addresses(town, known=filled(town)))[part::PARTS]:
        page.set_viewport_size({"width": DESK, "height": 900})
        answer = page.goto(home + address)
        assert answer is not None and answer.status == 200, f"{name}: {answer and answer.status}"
        wrong += _broken(page, f"{name} on a desk")
        page.set_viewport_size({"width": PHONE, "height": 800})
        wrong += _broken(page, f"{name} on a phone")
    assert wrong == []


def test_a_refused_form_and_an_open_action_break_no_rule(as_person: People, town: dict[str, Any]) -> None:
    page = as_person("ada", "admin")
    home = page.url
    page.goto(f"{home}new-environment/")
    page.fill("input[name=poll_interval_ms]", "3")
    page.fill("input[name=name]", "two words")
    page.click("button:has-text('Register it')")
    page.wait_for_selector(".errorlist")
    wrong = _broken(page, "a refused form")
    page.goto(f"{home}rollouts/{Rollout.objects.get(pk=town['rollout'].pk).pk}/")
    page.click("#head >> text='Pause'")
    page.wait_for_selector("#sheet form")
    wrong += _broken(page, "an action beside its page")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{home}nothing-here/")
        wrong += _broken(page, f"an error's page, {scheme}")
    assert wrong == []


def test_every_page_with_arguments_is_tested(town: dict[str, Any]) -> None:
    """A new page must be added to `filled`, so that it is not forgotten."""
    walked = {name for name, _ in addresses(town, known=filled(town))}
    everything = {pattern.name for pattern in _patterns(get_resolver().url_patterns)}
    assert everything - walked - NOT_PAGES - DJANGOS - {None} == ELSEWHERE


# Forms of the same shape as tested ones, or that need a key which is valid only once.
ELSEWHERE = {"change_person", "revoke_invitation", "review_break_glass"}
