"""A receiver that answers nothing: its backlog ends, and what a person sends to it is attempted at once."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from django.db import transaction

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.notifications import actions, delivery, events, outbox
from controlplane.notifications.models import Delivery, Notification, Receiver
from controlplane.notifications.sending import Outcome
from tests.support.receivers import Listener, status

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db
WAITING, DELIVERED, DEAD = Delivery.State.WAITING, Delivery.State.DELIVERED, Delivery.State.DEAD


@pytest.fixture(autouse=True)
def stopped_clock(settings: Any) -> "Iterator[time_machine.Traveller]":
    settings.CLOCK = "process"
    with time_machine.travel(clock.now(), tick=False) as now:
        yield now


def receiver(listener: Listener) -> Receiver:
    return actions.add_receiver("ops", "webhook", listener.url, actor=SYSTEM)[0]


def tell(*sentences: str) -> None:
    for sentence in sentences:
        with transaction.atomic():
            outbox.emit(events.HELD, sentence)
    outbox.spread()


def sentences(listener: Listener) -> list[str]:
    ids = [headers["webhook-id"] for _, headers, _ in listener.got]
    return [Notification.objects.get(pk=pk).data["sentence"] for pk in ids]


def test_a_test_is_sent_before_the_backlog(listener: Listener) -> None:
    """The attempt went to the oldest message, so the person who pressed the button saw no answer."""
    listener.answers = [status(500)]
    found = receiver(listener)
    tell("one", "two", "three")
    delivery.run_due()
    sent = actions.send_test(found, actor=SYSTEM)
    delivery.run_due()
    sent.refresh_from_db()
    assert (sent.attempts, sent.status, len(listener.got)) == (1, 500, 2)


def test_what_is_sent_again_goes_before_the_backlog(
    listener: Listener, stopped_clock: time_machine.Traveller
) -> None:
    listener.answers = [status(410), status(500)]
    receiver(listener)
    tell("gone")
    delivery.run_due()
    dead = Delivery.objects.get(state=DEAD)
    tell("one")
    stopped_clock.shift(10)
    tell("two")
    delivery.run_due()
    actions.send_again(dead, actor=SYSTEM)
    delivery.run_due()
    assert sentences(listener) == ["gone", "one", "gone"]
    stopped_clock.shift(3_600)  # only its first attempt comes before the others
    delivery.run_due()
    assert sentences(listener)[3:] == ["two"]


def test_a_backlog_is_given_up_with_its_receiver(
    listener: Listener, stopped_clock: time_machine.Traveller
) -> None:
    """A message a minute to a receiver that only fails: 2,270 waited after 38 hours, and none was given up."""
    receiver(listener)
    tell(*(f"number {number}" for number in range(200)))
    began = clock.now()
    while clock.now() - began < delivery.SERIES - timedelta(hours=1):
        stopped_clock.shift(delivery.PAUSES[3])
        _fail_once()
    assert Delivery.objects.filter(state=DEAD).count() == 0
    tell("new")
    for _ in range(12):
        stopped_clock.shift(delivery.PAUSES[3])
        _fail_once()
    given_up = Delivery.objects.filter(state=DEAD)
    assert given_up.count() > 30
    assert set(given_up.values_list("answer", flat=True)) == {
        "Given up: the receiver accepted no message for 28 hours."
    }
    assert not Delivery.objects.filter(state=WAITING, due_at__lt=clock.now() - delivery.SERIES).exists()
    assert Delivery.objects.get(notification__data__sentence="new").state == WAITING


def _fail_once() -> None:
    """Make one attempt, as `run_due` does, without the network."""
    for claimed in delivery._claim([], 16):
        delivery._keep(claimed, Outcome(False, "no", 500))


def test_what_waited_while_nothing_was_sent_gets_its_attempts(
    listener: Listener, stopped_clock: time_machine.Traveller
) -> None:
    """The processes stood still for two days: nobody knows yet whether the receiver fails."""
    receiver(listener)
    tell("one", "two")
    stopped_clock.shift(timedelta(days=2))
    for _ in range(20):
        _fail_once()
        stopped_clock.shift(delivery.PAUSES[3])
    assert Delivery.objects.filter(state=DEAD).count() == 0


def test_a_receiver_gets_one_attempt_at_a_time_from_all_processes(
    listener: Listener, stopped_clock: time_machine.Traveller
) -> None:
    receiver(listener)
    tell("one", "two")
    (first,) = delivery._claim([], 16)
    assert delivery._claim([], 16) == [], "another process, which does not know of the first attempt"
    second = Delivery.objects.exclude(pk=first.pk).select_related("receiver").get()
    assert not delivery._take(second, clock.now()), (
        "it has read the waiting ones before the first was claimed"
    )
    delivery._keep(first, Outcome(True, ""))
    assert [claimed.pk for claimed in delivery._claim([], 16)] == [second.pk]
    stopped_clock.shift(delivery.CLAIMED_S + 1)  # that process died
    assert [claimed.pk for claimed in delivery._claim([], 16)] == [second.pk]


def test_what_waits_for_a_disabled_receiver_is_deleted_when_it_is_old(
    listener: Listener, stopped_clock: time_machine.Traveller
) -> None:
    found = receiver(listener)
    tell("old")
    actions.edit_receiver(found, expected=None, actor=SYSTEM, enabled=False, reason="too loud")
    stopped_clock.shift(outbox.KEPT_FOR - timedelta(hours=1))
    outbox.prune()
    assert Delivery.objects.get().state == WAITING
    stopped_clock.shift(timedelta(hours=2))
    outbox.prune()
    assert not Delivery.objects.exists() and not Notification.objects.exclude(type=events.CHECKPOINT).exists()
