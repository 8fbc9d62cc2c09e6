"""A form that was opened before somebody else's change does not undo that change unnoticed."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from controlplane.access.actions import set_team_members
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.notifications.actions import add_receiver, edit_receiver
from controlplane.notifications.models import Receiver
from policies_app import actions
from policies_app.models import Environment, Workload
from rollout_app.actions import add_plan, edit_plan, remove_guardrail, set_guardrail
from rollout_app.models import GuardrailOverride, Plan
from tests.support.filled_in import filled_in
from tests.support.pages import text
from tests.support.people import People, actor_of


@pytest.fixture
def root(people: People, summaries: Workload) -> Client:
    return people("root", "admin", "editor", "operator", "approver", team=summaries.owner)


def frozen(production: Environment, days: int, reason: str) -> None:
    until = clock.now() + timedelta(days=days)
    changes: dict[str, Any] = {"frozen_until": until, "freeze_reason": reason}
    actions.edit_environment(production, actor=SYSTEM, reason=reason, **changes)


def test_a_freeze_that_was_extended_is_not_shortened(root: Client, production: Environment) -> None:
    frozen(production, 1, "Black Friday")
    address = reverse("console:freeze", args=["production"])
    opened = filled_in(root.get(address), having="freeze_reason")
    frozen(production, 9, "a fire in the data centre")
    refused = root.post(address, {**opened, "freeze_reason": "Black Friday, and Saturday"})
    page = text(refused)
    assert refused.status_code == 422 and "Somebody else saved it in the meantime" in page
    assert "a fire in the data centre" in page
    production.refresh_from_db()
    assert production.freeze_reason == "a fire in the data centre"
    assert root.post(address, filled_in(refused, having="freeze_reason")).status_code == 302
    production.refresh_from_db()
    assert production.freeze_reason == "Black Friday, and Saturday"


def test_the_end_of_one_freeze_does_not_end_the_next(root: Client, production: Environment) -> None:
    frozen(production, 1, "Black Friday")
    address = reverse("console:thaw", args=["production"])
    opened = filled_in(root.get(address), having="reason")
    frozen(production, 9, "a fire in the data centre")
    refused = root.post(address, {**opened, "reason": "the sale is over"})
    assert refused.status_code == 422 and "the sale is over" in text(refused)
    production.refresh_from_db()
    assert production.frozen_until is not None
    assert root.post(address, filled_in(refused, having="reason")).status_code == 302
    production.refresh_from_db()
    assert production.frozen_until is None


def test_the_end_of_one_pin_does_not_end_the_next(root: Client, summaries: Workload) -> None:
    assignment = summaries.assignments.get()
    actions.pin(assignment, "large", actor=SYSTEM, reason="incident 1")
    address = reverse("console:unpin", args=["summaries", "production"])
    opened = filled_in(root.get(address), having="reason")
    actions.pin(assignment, "large", actor=SYSTEM, reason="incident 2,\nthe worse one")
    refused = root.post(address, {**opened, "reason": "incident 1 is over"})
    assert refused.status_code == 422 and "incident 2," in text(refused)
    assignment.refresh_from_db()
    assert assignment.pin_model == "large"
    assert root.post(address, filled_in(refused, having="reason")).status_code == 302
    assignment.refresh_from_db()
    assert assignment.pin_model == ""


def test_a_receiver_that_was_disabled_stays_so(root: Client) -> None:
    receiver, _ = add_receiver("ops", "webhook", "https://hooks.example.com/", actor=SYSTEM)
    address = reverse("console:receiver", args=[receiver.pk])
    opened = filled_in(root.get(address), having="address")
    edit_receiver(
        receiver, expected=None, actor=SYSTEM, reason="it leaks", enabled=False, events=["rollout.held"]
    )
    refused = root.post(address, {**opened, "name": "on-call"})
    page = text(refused)
    assert refused.status_code == 422 and "Somebody else saved it in the meantime" in page
    assert "has been held at one stage" in page, "an event is shown in words"
    assert (Receiver.objects.get().name, Receiver.objects.get().enabled) == ("ops", False)
    assert root.post(address, filled_in(refused, having="address")).status_code == 302
    assert (Receiver.objects.get().name, Receiver.objects.get().enabled) == ("on-call", True)


@pytest.mark.parametrize("change", ["set", "set again", "removed"])
def test_a_guardrail_that_was_changed_stays_so(root: Client, summaries: Workload, change: str) -> None:
    if change != "set":
        set_guardrail(summaries, "failure", actor=SYSTEM, margin=0.015)
    address = reverse("console:edit_margin", args=["summaries", "failure"])
    opened = filled_in(root.get(address), having="margin")
    if change == "removed":
        remove_guardrail(summaries, "failure", actor=SYSTEM, reason="as all")
    else:
        set_guardrail(summaries, "failure", actor=SYSTEM, margin=0.005)
    before = list(GuardrailOverride.objects.values_list("margin", "weight"))
    refused = root.post(address, {**opened, "weight": "0.4", "reason": "it matters more"})
    assert refused.status_code == 422 and "Somebody else saved it in the meantime" in text(refused)
    assert list(GuardrailOverride.objects.values_list("margin", "weight")) == before
    assert root.post(address, filled_in(refused, having="margin")).status_code == 302
    assert GuardrailOverride.objects.get().weight == 0.4


def test_members_that_somebody_else_changed_stay_so(root: Client, summaries: Workload) -> None:
    team = summaries.owner
    for name in ("eva", "ivan", "lena"):
        actor_of(name)
    people = {user.username: user for user in User.objects.all()}
    set_team_members(team, [people["root"], people["eva"]], actor=SYSTEM)
    address = reverse("console:team", args=[team.name])
    opened = filled_in(root.get(address), having="seen")
    set_team_members(team, [people["root"], people["ivan"]], actor=SYSTEM, reason="eva has left")
    added = [*opened["members"], str(people["lena"].pk)]
    assert root.post(address, {**opened, "members": added, "reason": "new"}).status_code == 302
    assert sorted(team.members.values_list("username", flat=True)) == ["ivan", "lena", "root"]
    entry = Entry.objects.filter(action="team.set_members").latest("seq")
    assert entry.reason == "new"


def test_a_plan_that_was_edited_is_not_removed_unseen(root: Client) -> None:
    add_plan("ours", [{"mode": "full"}], actor=SYSTEM)
    address = reverse("console:remove_plan", args=["ours"])
    opened = filled_in(root.get(address), having="reason")
    edit_plan("ours", actor=SYSTEM, description="for the big launch")
    refused = root.post(address, {**opened, "reason": "unused"})
    assert refused.status_code == 422 and Plan.objects.filter(name="ours").exists()
    assert root.post(address, filled_in(refused, having="reason")).status_code == 302
    assert not Plan.objects.filter(name="ours").exists()
