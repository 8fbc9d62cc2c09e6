"""Deliver what is due: claim deliveries, attempt them, store the answers. Safe in any number of processes.

Claiming a delivery moves its `due_at` forward, so that it is attempted again if the process dies. Each receiver has one
attempt at a time, and rests after a failure. A dead receiver therefore costs one attempt now and then, and delays
nobody else.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db.models import F, Q

from controlplane.core import clock
from controlplane.core.errors import PointsmanError
from controlplane.notifications import messages, outbox, secrets, sending
from controlplane.notifications.models import Delivery, Receiver
from controlplane.notifications.sending import Mail, Outcome, Post

log = logging.getLogger(__name__)

# Pauses before the second, third … attempt, in seconds, each lengthened by a random amount of up to a fifth. The last
# attempt comes after some 28 hours; then the delivery is given up, and a person can resend it.
PAUSES = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200)
CLAIMED_S = 60  # an attempt takes far less
AT_ONCE = 16  # concurrent attempts per process
PASS_S = 20.0  # a pass starts no new attempts after this time
# A time further in the future than we ever set was written by a clock that has been corrected since.
SKEW = timedelta(seconds=5)
LONGEST_REST = timedelta(seconds=PAUSES[3])


def run_due(pass_s: float = PASS_S) -> int:
    """Deliver until nothing is due, or for `pass_s` seconds. Return the number of attempts."""
    outbox.spread()
    began, made = time.monotonic(), 0
    under_way: dict[Future[Outcome], Delivery] = {}
    with _event_loop() as loop:
        while True:
            if time.monotonic() - began < pass_s:
                for delivery in _claim(under_way.values(), AT_ONCE - len(under_way)):
                    under_way[_begin(delivery, loop)] = delivery
                    made += 1
            if not under_way:
                return made
            done, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                _keep(under_way.pop(future), future.result())


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in its own thread. This thread uses the database; that one waits for receivers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="notify-loop", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(sending.PATIENCE_S)
        loop.close()


def _claim(under_way: Iterable[Delivery], room: int) -> list[Delivery]:
    """Claim the oldest due delivery of each receiver without a current attempt, at most `room` of them."""
    now = clock.now()
    busy = {delivery.receiver_id for delivery in under_way}
    rested = Q(rests_until=None) | Q(rests_until__lte=now) | Q(rests_until__gt=now + LONGEST_REST)
    free = Receiver.objects.filter(rested, enabled=True)
    from_the_future = Q(attempts=0, due_at__gt=now + SKEW) | Q(attempted_at__gt=now + SKEW)
    due = Delivery.objects.filter(Q(due_at__lte=now) | from_the_future, state=Delivery.State.WAITING)
    waited_for = due.filter(receiver__in=free.exclude(pk__in=busy)).order_by()
    claimed: list[Delivery] = []
    for receiver in list(waited_for.values_list("receiver_id", flat=True).distinct()):
        oldest = due.filter(receiver_id=receiver).order_by("due_at", "id")
        delivery = oldest.select_related("receiver", "notification").first()
        if len(claimed) < room and delivery is not None and _take(delivery, now):
            claimed.append(delivery)
    return claimed


def _take(delivery: Delivery, now: datetime) -> bool:
    """Claim a delivery by compare-and-swap: another process may have taken it just now."""
    same = Delivery.objects.filter(pk=delivery.pk, due_at=delivery.due_at, state=Delivery.State.WAITING)
    taken = same.update(
        due_at=now + timedelta(seconds=CLAIMED_S), attempts=F("attempts") + 1, attempted_at=now
    )
    delivery.attempts += taken
    return bool(taken)


def _begin(delivery: Delivery, loop: asyncio.AbstractEventLoop) -> Future[Outcome]:
    try:
        message = _message(delivery)
    except PointsmanError as error:  # a secret cannot be unsealed, so nothing can be sent
        failed: Future[Outcome] = Future()
        failed.set_result(Outcome(False, error.detail))
        return failed
    return asyncio.run_coroutine_threadsafe(sending.attempt(message), loop)


def _message(delivery: Delivery) -> Post | Mail:
    receiver, notification = delivery.receiver, delivery.notification
    if receiver.kind == Receiver.Kind.EMAIL:
        return Mail(receiver.address, messages.subject(notification), messages.text(notification))
    headers = {"content-type": "application/json"}
    if receiver.kind == Receiver.Kind.SLACK:
        return Post(secrets.slack_address(receiver), headers, messages.slack(notification))
    now = clock.now()
    content = messages.body(notification)
    signed = messages.headers(notification, content, secrets.signing(receiver, now), now)
    return Post(receiver.address, headers | signed, content)


def _keep(delivery: Delivery, outcome: Outcome) -> None:
    """Store the outcome, unless somebody has resent the delivery in the meantime."""
    now = clock.now()
    values = {"status": outcome.status, "answer": outcome.answer}
    mine = Delivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts)
    receiver = Receiver.objects.filter(pk=delivery.receiver_id)
    if outcome.delivered:
        mine.update(state=Delivery.State.DELIVERED, **values)
        receiver.filter(failures__gt=0).update(failures=0, rests_until=None)
        return
    pause = _pause(delivery, outcome)
    if pause is None:
        mine.update(state=Delivery.State.DEAD, **values)
        log.warning("gave up delivering a notification to %s: %s", delivery.receiver, outcome.answer)
    else:
        mine.update(due_at=now + pause, **values)
    rest = timedelta(seconds=PAUSES[min(delivery.receiver.failures, 3)])
    receiver.update(failures=F("failures") + 1, rests_until=now + rest)


def _pause(delivery: Delivery, outcome: Outcome) -> timedelta | None:
    """Return the time until the next attempt; None if there is none."""
    if outcome.final or delivery.attempts > len(PAUSES):
        return None
    seconds = PAUSES[delivery.attempts - 1] * random.uniform(1.0, 1.2)  # noqa: S311 — not security-relevant
    return timedelta(seconds=max(seconds, min(outcome.retry_after or 0, 86_400)))
