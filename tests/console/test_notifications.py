"""The pages of notifications, and the banner of break-glass."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.notifications import delivery
from controlplane.notifications.models import BreakGlass, Delivery, Receiver
from policies_app.models import Environment, Workload
from rollout_app import actions as rollouts
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People, actor_of, proposed
from tests.support.receivers import Listener, status

pytestmark = pytest.mark.django_db


@pytest.fixture
def listener(settings: Any) -> Any:
    settings.WEBHOOK_ALLOWED = ["127.0.0.1"]
    with Listener() as listener:
        yield listener


def add(client: Client, listener: Listener, **fields: Any) -> Any:
    form = {"name": "ops", "kind": "webhook", "address": listener.url, "reason": "to be told"} | fields
    return client.post(reverse("console:add_receiver"), form)


def test_an_admin_adds_a_receiver_and_sees_the_secret_once(people: People, listener: Listener) -> None:
    ann = people("ann", "admin")
    response = add(ann, listener, events=["rollout.rolled_back"], environments="production, staging")
    assert "whsec_" in text(response)
    receiver = Receiver.objects.get()
    assert (receiver.events, receiver.environments) == (["rollout.rolled_back"], ["production", "staging"])
    for name, args in (("notifications", []), ("receiver", [receiver.pk])):
        page = text(ann.get(reverse(f"console:{name}", args=args)))
        assert "ops" in page
        assert "whsec_" not in page


def test_a_refused_address_is_shown_in_the_form(people: People, listener: Listener) -> None:
    response = add(people("ann", "admin"), listener, address="https://169.254.169.254/")
    assert response.status_code == 422
    assert "169.254.169.254 is internal; WEBHOOK_ALLOWED" in text(response)


def test_a_test_shows_its_answer_and_a_failed_delivery_is_sent_again(
    people: People, listener: Listener
) -> None:
    listener.answers = [status(410, b"no more of this"), status(200)]
    ann = people("ann", "admin")
    add(ann, listener)
    receiver = Receiver.objects.get()
    ann.post(reverse("console:test_receiver", args=[receiver.pk]))
    delivery.run_due()
    page = text(ann.get(reverse("console:receiver", args=[receiver.pk])))
    assert "410 <code>no more of this</code>" in page
    assert "1 delivery was given up" in text(ann.get(reverse("console:notifications")))
    ann.post(reverse("console:send_again", args=[Delivery.objects.get().pk]))
    delivery.run_due()
    assert Delivery.objects.get().state == Delivery.State.DELIVERED


def test_an_edit_and_a_rotation_are_entries(people: People, listener: Listener) -> None:
    ann = people("ann", "admin")
    add(ann, listener)
    receiver = Receiver.objects.get()
    form = {"name": "on-call", "address": listener.url, "reason": "it is called so"}
    refused = ann.post(reverse("console:receiver", args=[receiver.pk]), form | {"reason": ""})
    assert refused.status_code == 422  # disabling a receiver requires a reason
    ann.post(reverse("console:receiver", args=[receiver.pk]), form | {"enabled": "on"})
    rotated = ann.post(reverse("console:rotate_receiver", args=[receiver.pk]), {"hours": "24"})
    assert "whsec_" in text(rotated)
    receiver.refresh_from_db()
    assert (receiver.name, receiver.enabled, len(receiver.secrets)) == ("on-call", True, 2)
    actions = Entry.objects.filter(target_kind="receiver").order_by("seq").values_list("action", flat=True)
    assert list(actions) == ["receiver.add", "receiver.edit", "receiver.rotate_secret"]


def test_an_empty_field_keeps_the_slack_address(people: People, listener: Listener) -> None:
    ann = people("ann", "admin")
    add(ann, listener, kind="slack", address=f"{listener.url}/secret-part")
    receiver = Receiver.objects.get()
    page = text(ann.get(reverse("console:receiver", args=[receiver.pk])))
    assert "secret-part" not in page
    form = {"name": "chat", "address": "", "enabled": "on"}
    ann.post(reverse("console:receiver", args=[receiver.pk]), form)
    after = Receiver.objects.get()
    assert (after.name, after.sealed_address) == ("chat", receiver.sealed_address)


@pytest.mark.parametrize("role", ["viewer", "editor", "approver", "operator"])
def test_it_requires_an_admin_of_every_environment(people: People, listener: Listener, role: str) -> None:
    add(people("ann", "admin"), listener)
    receiver = Receiver.objects.get()
    tom = people("tom", role)
    for name, args in (
        ("notifications", []), ("add_receiver", []), ("receiver", [receiver.pk]), ("rotate_receiver", [receiver.pk]),
    ):  # fmt: skip
        assert tom.get(reverse(f"console:{name}", args=args)).status_code == 403
    assert tom.post(reverse("console:test_receiver", args=[receiver.pk])).status_code == 403
    assert 'href="/console/notifications/"' not in text(tom.get(reverse("console:index")))


@pytest.fixture
def broken(summaries: Workload, production: Environment) -> BreakGlass:
    rollout = proposed(summaries, production)
    BreakGlass.objects.all().delete()  # those of the set-up
    rollouts.break_glass_start(rollout, actor=actor_of("tom"), reason="the site is down")
    return BreakGlass.objects.get()


def test_break_glass_is_shown_on_every_page_until_reviewed(people: People, broken: BreakGlass) -> None:
    eva, tom = people("eva", "approver"), people("tom", "approver", "operator")
    names = ("index", "workloads", "rollouts", "fleet", "audit", "changes", "break_glasses")
    pages = [reverse(f"console:{name}") for name in names]
    for address in pages:
        assert "bypassed the approval of summaries" in text(eva.get(address))
    review = reverse("console:review_break_glass", args=[broken.pk])
    assert "somebody else must review it" in text(tom.get(review))
    assert tom.post(review, {"reason": "fine"}).status_code == 422
    assert eva.post(review, {"reason": ""}).status_code == 422
    assert eva.post(review, {"reason": "it was right"}).status_code == 302
    for address in pages:
        assert "bypassed the approval of" not in text(eva.get(address))
    assert "eva" in text(eva.get(reverse("console:break_glasses")))


def test_a_banner_is_shown_to_people_who_see_the_environment(people: People, broken: BreakGlass) -> None:
    sam = people("sam", "viewer", environment="staging")
    assert "bypassed" not in text(sam.get(reverse("console:index")))
    assert sam.get(reverse("console:review_break_glass", args=[broken.pk])).status_code == 404
    vera = people("vera", "viewer", environment="production")
    assert "bypassed" in text(vera.get(reverse("console:index")))
    assert (
        vera.post(reverse("console:review_break_glass", args=[broken.pk]), {"reason": "a"}).status_code == 422
    )
    assert BreakGlass.objects.get().reviewed_at is None


def test_many_uses_of_break_glass_are_one_banner(
    people: People, broken: BreakGlass, production: Environment
) -> None:
    for name in ("alpha", "beta"):
        builders.served(production, builders.workload(name))
    page = text(people("eva", "approver").get(reverse("console:workloads")))
    assert page.count("This notice stays on every page") == 1 and "2 more" in page
    listed = text(people("eva", "approver").get(reverse("console:break_glasses")))
    assert "A first version served without approval" in listed and "assignment.break_glass" not in listed


def test_the_list_of_receivers_shows_no_codes(people: People, listener: Listener) -> None:
    ann = people("ann", "admin")
    add(ann, listener, events=["rollout.rolled_back"])
    page = text(ann.get(reverse("console:notifications")))
    assert "A rollout is rolled back by Pointsman or a person" in page
    assert "rollout.rolled_back" not in page
