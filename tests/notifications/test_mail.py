"""Mail: slow servers are waited for, hanging ones end, and nobody gets the same mail again and again."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.notifications import actions, delivery, events, outbox, sending
from controlplane.notifications.models import Delivery, Receiver
from tests.support.mail_servers import MailServer, after, drip, hang, hang_up
from tests.support.plane import until
from tests.support.receivers import Listener

pytestmark = pytest.mark.django_db
WAITING, DELIVERED, DEAD = Delivery.State.WAITING, Delivery.State.DELIVERED, Delivery.State.DEAD
SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture(autouse=True)
def this_process_clock(settings: Any) -> None:
    settings.CLOCK = "process"


def tell(server: MailServer, settings: Any, receivers: int = 1) -> None:
    """Let these receivers of mail get one notification through this server."""
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = SMTP, "127.0.0.1", server.port
    settings.EMAIL_HOST_SET = True
    for number in range(receivers):
        actions.add_receiver(f"mail-{number}", "email", f"ops-{number}@example.org", actor=SYSTEM)
    outbox.emit(events.HELD, "It is held.")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("notify-mail")]


def test_a_slow_server_gets_a_mail_once(settings: Any, monkeypatch: Any) -> None:
    """It was given up after ten seconds, and the mail was sent again eleven times."""
    monkeypatch.setattr(sending, "PATIENCE_S", 0.5)
    slow = after(0.3)
    with MailServer(greeting=slow, EHLO=slow, MAIL=slow, RCPT=slow, DATA=slow, message=slow) as server:
        tell(server, settings)
        assert delivery.run_due() == 1
    assert (Delivery.objects.get().state, len(server.got)) == (DELIVERED, 1)
    assert sending.MAIL_PATIENCE_S + 5 < delivery.CLAIMED_S


@pytest.mark.parametrize("place", ["greeting", "EHLO", "DATA"])
@pytest.mark.parametrize("answer", [drip, hang], ids=["drips", "hangs"])
def test_a_hanging_server_keeps_no_thread(settings: Any, monkeypatch: Any, answer: Any, place: str) -> None:
    monkeypatch.setattr(sending, "MAIL_PATIENCE_S", 0.5)
    with MailServer(**{place: answer}) as server:
        tell(server, settings)
        assert delivery.run_due() == 1
        until(lambda: not threads())
    failed = Delivery.objects.get()
    assert (failed.state, failed.answer) == (WAITING, "no complete answer within 0.5 s")
    assert Receiver.objects.get().failures == 1


def test_no_thread_keeps_the_process_from_ending() -> None:
    """An executor's threads are joined at the end."""
    is_daemon = sending._in_a_thread(lambda: threading.current_thread().daemon, "notify-mail")
    assert asyncio.run(is_daemon)


def test_hanging_mail_does_not_delay_a_webhook(settings: Any, monkeypatch: Any) -> None:
    """Mail and the lookups of names shared sixteen threads, and mail took all places of a pass."""
    monkeypatch.setattr(sending, "MAIL_PATIENCE_S", 5.0, raising=False)
    settings.WEBHOOK_ALLOWED = ["localhost"]
    with MailServer(greeting=drip) as server, Listener() as listener:
        tell(server, settings, receivers=delivery.AT_ONCE)
        address = listener.url.replace("127.0.0.1", "localhost")
        actions.add_receiver("hook", "webhook", address, actor=SYSTEM)
        outbox.spread()
        hook = Delivery.objects.filter(receiver__name="hook")
        hook.update(due_at=clock.now())  # the last one
        later = clock.now() + timedelta(hours=1)
        Delivery.objects.filter(receiver__name="mail-0").update(due_at=later)
        delivery.run_due(pass_s=0.5)
    assert hook.get().state == DELIVERED


@pytest.mark.parametrize("answer", [hang, hang_up], ids=["never confirms", "hangs up"])
def test_a_mail_that_may_have_arrived_is_repeated_after_a_long_pause(
    settings: Any, monkeypatch: Any, answer: Any
) -> None:
    monkeypatch.setattr(sending, "MAIL_PATIENCE_S", 0.5)
    with time_machine.travel(clock.now(), tick=False) as now, MailServer(message=answer) as server:
        tell(server, settings)
        for _ in range(4 * 11):
            delivery.run_due()
            now.shift(timedelta(hours=1))
    given_up = Delivery.objects.get()
    assert (len(server.got), given_up.attempts, given_up.state) == (3, 3, DEAD)
    assert "got the message, but did not confirm it" in given_up.answer
    assert Receiver.objects.get().failures == 0


def test_a_mail_that_was_refused_is_repeated_soon(settings: Any) -> None:
    with MailServer(DATA=lambda line, _: line.say(b"451 try later")) as server:
        tell(server, settings)
        delivery.run_due()
    waiting = Delivery.objects.get()
    assert (waiting.state, waiting.due_at < clock.now() + timedelta(minutes=1)) == (WAITING, True)
    assert Receiver.objects.get().failures == 1


def test_a_server_that_hangs_at_the_goodbye_has_the_mail(settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sending, "MAIL_PATIENCE_S", 0.5)
    with MailServer(QUIT=hang) as server:
        tell(server, settings)
        delivery.run_due()
    assert (Delivery.objects.get().state, len(server.got)) == (DELIVERED, 1)
