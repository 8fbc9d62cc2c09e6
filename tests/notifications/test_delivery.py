"""Messages arrive, signed, whatever a receiver does, and a bad receiver delays nobody else."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import transaction
from standardwebhooks import Webhook

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.notifications import actions, delivery, events, outbox, sending
from controlplane.notifications.models import Delivery, Notification, Receiver
from tests.support.receivers import Listener, drip, endless, hang, status

pytestmark = pytest.mark.django_db
WAITING, DELIVERED, DEAD = Delivery.State.WAITING, Delivery.State.DELIVERED, Delivery.State.DEAD


def receiver(listener: Listener, name: str = "ops", **fields: Any) -> tuple[Receiver, str]:
    return actions.add_receiver(name, "webhook", listener.url, actor=SYSTEM, **fields)


def tell(sentence: str = "Something happened.", type_: str = events.HELD, **data: Any) -> None:
    with transaction.atomic():
        outbox.emit(type_, sentence, **data)


def test_it_is_signed_according_to_standard_webhooks(listener: Listener) -> None:
    _, secret = receiver(listener)
    tell(environment="production", workload="summaries")
    assert delivery.run_due() == 1
    ((path, headers, body),) = listener.got
    assert path == "/hook"
    document = Webhook(secret).verify(body, headers)
    assert document["type"] == "rollout.held"
    assert document["data"]["workload"] == "summaries"
    assert headers["webhook-id"] == str(Notification.objects.get().pk)
    assert Delivery.objects.get().state == DELIVERED


def test_during_a_rotation_both_secrets_sign(listener: Listener) -> None:
    found, old = receiver(listener)
    _, new = actions.rotate_secret(found, expected=None, actor=SYSTEM)
    tell()
    delivery.run_due()
    _, headers, body = listener.got[0]
    assert Webhook(old).verify(body, headers) == Webhook(new).verify(body, headers)


def test_after_the_overlap_the_old_secret_no_longer_signs(listener: Listener) -> None:
    found, old = receiver(listener)
    found, new = actions.rotate_secret(found, expected=None, actor=SYSTEM, overlap=timedelta(0))
    tell()
    delivery.run_due()
    _, headers, body = listener.got[0]
    Webhook(new).verify(body, headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(old).verify(body, headers)


@pytest.mark.parametrize("code", [500, 503, 404, 401, 301, 429])
def test_a_failed_attempt_is_repeated_with_the_same_id(listener: Listener, settings: Any, code: int) -> None:
    settings.CLOCK = "process"
    listener.answers = [status(code, b"not now"), status(204, b"")]
    receiver(listener)
    with time_machine.travel(clock.now(), tick=False) as now:
        tell()
        delivery.run_due()
        waiting = Delivery.objects.get()
        assert (waiting.state, waiting.status, waiting.attempts) == (WAITING, code, 1)
        now.shift(delivery.PAUSES[0] * 1.2 + 1)
        assert delivery.run_due() == 1
    assert Delivery.objects.get().state == DELIVERED
    assert len({headers["webhook-id"] for _, headers, _ in listener.got}) == 1


def test_pauses_grow_until_the_last_attempt_gives_up(listener: Listener, settings: Any) -> None:
    settings.CLOCK = "process"
    listener.answers = [status(500)]
    receiver(listener)
    pauses = []
    with time_machine.travel(clock.now(), tick=False) as now:
        tell()
        while (found := _attempted()).state == WAITING:
            pauses.append((found.due_at - clock.now()).total_seconds())
            now.move_to(found.due_at + timedelta(seconds=700))  # past the receiver's pause, too
    assert len(listener.got) == len(delivery.PAUSES) + 1
    assert found.state == DEAD
    assert pauses == sorted(pauses)
    assert all(pause >= least for pause, least in zip(pauses, delivery.PAUSES, strict=True))


def _attempted() -> Delivery:
    delivery.run_due()
    return Delivery.objects.get()


def test_it_respects_retry_after(listener: Listener) -> None:
    listener.answers = [status(429, Retry_After="3600")]
    receiver(listener)
    tell()
    delivery.run_due()
    assert Delivery.objects.get().due_at > clock.now() + timedelta(minutes=55)


def test_a_receiver_that_is_gone_gets_no_more_attempts(listener: Listener) -> None:
    listener.answers = [status(410)]
    receiver(listener)
    tell()
    delivery.run_due()
    assert Delivery.objects.get().state == DEAD


def test_a_delivery_given_up_can_be_sent_again(listener: Listener) -> None:
    listener.answers = [status(410), status(200)]
    receiver(listener)
    tell()
    delivery.run_due()
    again = actions.send_again(Delivery.objects.get(), actor=SYSTEM)
    assert (again.state, again.attempts) == (WAITING, 0)
    delivery.run_due()
    assert Delivery.objects.get().state == DELIVERED


@pytest.mark.parametrize("answer", [hang, drip], ids=["hangs", "drips"])
def test_a_slow_receiver_is_given_up_in_time(listener: Listener, monkeypatch: Any, answer: Any) -> None:
    monkeypatch.setattr(sending, "PATIENCE_S", 1.0)
    monkeypatch.setattr(delivery, "PAUSES", (600,) * 10)
    listener.answers = [answer]
    receiver(listener)
    for number in range(5):
        tell(f"number {number}")
    delivery.run_due()
    assert len(listener.got) == 1  # one attempt at a time, then the receiver pauses
    assert "no complete answer" in Delivery.objects.exclude(attempted_at=None).get().answer


def test_a_slow_receiver_does_not_delay_another(listener: Listener, monkeypatch: Any) -> None:
    """It answers only when the other one has received everything. In sequence neither would finish."""
    monkeypatch.setattr(sending, "PATIENCE_S", 60.0)
    others_are_done = threading.Event()

    def slow(handler: Any) -> None:
        status(200, b"the other came first" if others_are_done.wait(50) else b"nobody else came")(handler)

    listener.answers = [slow]
    receiver(listener, "slow")
    with Listener() as well:

        def quick(handler: Any) -> None:
            status(200)(handler)
            if len(well.got) == 5:
                others_are_done.set()

        well.answers = [quick]
        receiver(well, "well")
        for number in range(5):
            tell(f"number {number}")
        delivery.run_due(pass_s=300)
    first = Delivery.objects.filter(receiver__name="slow").earliest("attempted_at")
    assert (first.state, first.answer) == (DELIVERED, "the other came first")
    assert Delivery.objects.exclude(state=DELIVERED).count() == 0


def test_an_endless_answer_is_cut_off(listener: Listener) -> None:
    listener.answers = [endless]
    receiver(listener)
    tell()
    delivery.run_due()
    found = Delivery.objects.get()
    assert (found.state, len(found.answer)) == (DELIVERED, sending.KEPT)


def test_an_unreachable_receiver_is_tried_again(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED = ["127.0.0.1"]
    actions.add_receiver("gone", "webhook", "http://127.0.0.1:9/", actor=SYSTEM)
    tell()
    delivery.run_due()
    found = Delivery.objects.get()
    assert found.state == WAITING
    assert "ConnectError" in found.answer


def test_an_address_no_longer_allowed_is_not_contacted(listener: Listener, settings: Any) -> None:
    receiver(listener)
    settings.WEBHOOK_ALLOWED = []
    tell()
    delivery.run_due()
    assert listener.got == []
    assert "WEBHOOK_ALLOWED" in Delivery.objects.get().answer


def test_an_unreadable_secret_is_reported_and_nothing_is_sent_unsigned(
    listener: Listener, settings: Any
) -> None:
    receiver(listener)
    before, settings.SECRET_KEY = settings.SECRET_KEY, "another key altogether"
    tell()
    delivery.run_due()
    assert listener.got == []
    assert "SECRET_KEY" in Delivery.objects.get().answer
    settings.SECRET_KEY_FALLBACKS = [before]
    Delivery.objects.update(due_at=clock.now())
    Receiver.objects.update(rests_until=None)
    delivery.run_due()
    assert Delivery.objects.get().state == DELIVERED


def test_after_a_rotation_an_unreadable_previous_secret_stops_nothing(
    listener: Listener, settings: Any
) -> None:
    """It stays active for a day, and every message failed for that long."""
    found, _ = receiver(listener)
    settings.SECRET_KEY = "another key altogether"
    _, new = actions.rotate_secret(found, expected=None, actor=SYSTEM)
    tell()
    delivery.run_due()
    _, headers, body = listener.got[0]
    Webhook(new).verify(body, headers)
    assert len(headers["webhook-signature"].split()) == 1


def test_two_processes_make_one_attempt(listener: Listener) -> None:
    receiver(listener)
    tell()
    outbox.spread()
    waiting = Delivery.objects.select_related("receiver", "notification").get()
    stale = Delivery.objects.get()
    assert delivery._take(waiting, clock.now())
    assert not delivery._take(stale, clock.now())
    assert delivery.run_due() == 0


def test_the_attempt_of_a_dead_process_is_repeated(listener: Listener, settings: Any) -> None:
    settings.CLOCK = "process"
    receiver(listener)
    with time_machine.travel(clock.now(), tick=False) as now:
        tell()
        outbox.spread()
        assert delivery._take(Delivery.objects.get(), clock.now())
        now.shift(delivery.CLAIMED_S + 1)
        assert delivery.run_due() == 1
    assert Delivery.objects.get().state == DELIVERED


@pytest.mark.parametrize("answers", [[], [status(500)]])
def test_a_clock_put_right_delays_nothing(
    listener: Listener, settings: Any, answers: list[Callable[[Any], None]]
) -> None:
    """F10: it was told, or failed, while the clock was a day ahead."""
    settings.CLOCK = "process"
    listener.answers = [*answers, status(204, b"")]
    receiver(listener)
    with time_machine.travel(clock.now() + timedelta(days=1), tick=False) as now:
        tell()
        outbox.spread()
        if answers:
            assert delivery.run_due() == 1
        now.shift(timedelta(days=-1))
        assert delivery.run_due() == 1
    assert Delivery.objects.get().state == DELIVERED


def test_slack_gets_plain_text_without_commands(listener: Listener, settings: Any) -> None:
    settings.PUBLIC_URL = "https://pointsman.example.org/"
    actions.add_receiver("chat", "slack", listener.url, actor=SYSTEM)
    tell("Look <!channel> & <https://evil.example|here>", target={"kind": "environment", "id": "production"})
    delivery.run_due()
    _, headers, body = listener.got[0]
    text = json.loads(body)["text"]
    assert text.startswith("Look &lt;!channel&gt; &amp; &lt;https://evil.example|here&gt;")
    assert text.endswith("https://pointsman.example.org/console/fleet/production/")
    assert "webhook-signature" not in headers


def test_mail_headers_cannot_be_injected(settings: Any, mailoutbox: Any) -> None:
    settings.EMAIL_HOST_SET = True
    actions.add_receiver("mail", "email", "ops@example.org", actor=SYSTEM)
    tell("Two\r\nBcc: everybody@example.org lines")
    delivery.run_due()
    (mail,) = mailoutbox
    assert mail.subject == "[Pointsman] Two Bcc: everybody@example.org lines"
    assert mail.to == ["ops@example.org"]
    assert Delivery.objects.get().state == DELIVERED


def test_a_receiver_gets_only_what_it_subscribed_to(listener: Listener) -> None:
    receiver(listener, events=[events.CHECKPOINT])
    with Listener() as other:
        receiver(other, "staging", environments=["staging"])
        tell(environment="production")
        tell(type_=events.CHECKPOINT)
        delivery.run_due()
        assert [json.loads(body)["type"] for _, _, body in listener.got] == [events.CHECKPOINT]
        assert [json.loads(body)["type"] for _, _, body in other.got] == [
            events.CHECKPOINT
        ]  # without an environment


def test_a_disabled_receiver_gets_nothing(listener: Listener) -> None:
    found, _ = receiver(listener)
    actions.edit_receiver(found, expected=None, actor=SYSTEM, enabled=False, reason="too loud")
    tell()
    assert delivery.run_due() == 0


def test_old_deliveries_are_deleted_and_waiting_ones_are_kept(listener: Listener, settings: Any) -> None:
    listener.answers = [status(200), status(500)]
    receiver(listener)
    tell("arrives")
    delivery.run_due()
    tell("waits")
    delivery.run_due()
    Notification.objects.update(at=clock.now() - outbox.KEPT_FOR - timedelta(hours=1))
    outbox.prune()
    assert Notification.objects.get().data["sentence"] == "waits"
