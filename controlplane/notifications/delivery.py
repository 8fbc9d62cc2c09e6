"""Deliver what is due: claim deliveries, attempt them, store the answers. Safe in any number of processes.

Claiming a delivery moves its `due_at` forward, so that it is attempted again if the process dies. Each receiver has one
attempt at a time, over all processes, and rests after a failure. A dead receiver therefore costs one attempt now and
then, and delays nobody else.
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

from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet

from controlplane.core import clock
from controlplane.core.errors import PointsmanError
from controlplane.notifications import events, messages, outbox, secrets, sending
from controlplane.notifications.models import Delivery, Receiver
from controlplane.notifications.sending import Mail, Outcome, Post

log = logging.getLogger(__name__)

# Pauses before the second, third … attempt, in seconds, each lengthened by a random amount of up to a fifth. The last
# attempt comes after some 28 hours; then the delivery is given up, and a person can resend it.
PAUSES = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200)
SERIES = timedelta(seconds=sum(PAUSES))
CLAIMED_S = 60  # an attempt takes less (`sending`)
AT_ONCE = 16  # concurrent attempts per process, of mail and of everything else
# A pass starts no new attempts after this time. While it waits for mail, which may take longer, it starts others.
PASS_S = 20.0
# A time further in the future than we ever set was written by a clock that has been corrected since.
SKEW = timedelta(seconds=5)
LONGEST_REST = timedelta(seconds=PAUSES[3])

_ANY, _IS_MAIL = Q(), Q(kind=Receiver.Kind.EMAIL)  # receivers


def run_due(pass_s: float = PASS_S) -> int:
    """Deliver until nothing is due, or for `pass_s` seconds. Return the number of attempts."""
    outbox.spread()
    began, made = time.monotonic(), 0
    under_way: dict[Future[Outcome], Delivery] = {}
    with _event_loop() as loop:
        while True:
            is_early = time.monotonic() - began < pass_s
            mail, others = _mail_and_others(under_way.values())
            claimed = _claim(mail, AT_ONCE - len(mail), _IS_MAIL) if is_early else []
            if is_early or mail:
                claimed += _claim(others, AT_ONCE - len(others), ~_IS_MAIL)
            for delivery in claimed:
                under_way[_begin(delivery, loop)] = delivery
            made += len(claimed)
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


def _mail_and_others(deliveries: Iterable[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    kinds: tuple[list[Delivery], list[Delivery]] = [], []
    for delivery in deliveries:
        kinds[delivery.receiver.kind != Receiver.Kind.EMAIL].append(delivery)
    return kinds


def _claim(under_way: Iterable[Delivery], room: int, kind: Q = _ANY) -> list[Delivery]:
    """Claim a due delivery of each receiver (of this kind) without a current attempt, at most `room` of them: the
    oldest, but first one that a person has sent."""
    now = clock.now()
    busy = {delivery.receiver_id for delivery in under_way}
    rested = Q(rests_until=None) | Q(rests_until__lte=now) | Q(rests_until__gt=now + LONGEST_REST)
    free = Receiver.objects.filter(rested, kind, enabled=True).exclude(
        pk__in=_claimed(now).values("receiver")
    )
    from_the_future = Q(attempts=0, due_at__gt=now + SKEW) | Q(attempted_at__gt=now + SKEW)
    due = Delivery.objects.filter(Q(due_at__lte=now) | from_the_future, state=Delivery.State.WAITING)
    waited_for = due.filter(receiver__in=free.exclude(pk__in=busy)).order_by()
    claimed: list[Delivery] = []
    for receiver in list(waited_for.values_list("receiver_id", flat=True).distinct()):
        ordered = due.filter(receiver_id=receiver).order_by(_ASKED_FOR.desc(), "due_at", "id")
        delivery = ordered.select_related("receiver", "notification").first()
        if len(claimed) < room and delivery is not None and _take(delivery, now):
            claimed.append(delivery)
    return claimed


# A test, or a delivery sent again, before its first attempt. A failing receiver gets few attempts, and somebody waits
# for the answer to this one.
_ASKED_FOR = ExpressionWrapper(
    Q(attempts=0) & (Q(notification__type=events.TEST) | Q(attempted_at__isnull=False)), BooleanField()
)


def _claimed(now: datetime) -> QuerySet[Delivery]:
    """Return the deliveries that any process is attempting now. `due_at` is the end of its claim."""
    ends = F("attempted_at") + timedelta(seconds=CLAIMED_S)
    claimed = Delivery.objects.filter(state=Delivery.State.WAITING, due_at__gt=now, due_at=ends)
    return claimed.filter(attempted_at__lte=now + SKEW)  # later: a clock that has been corrected since


def _take(delivery: Delivery, now: datetime) -> bool:
    """Claim a delivery by compare-and-swap: another process may have taken it, or another one of its receiver."""
    same = Delivery.objects.filter(pk=delivery.pk, due_at=delivery.due_at, state=Delivery.State.WAITING)
    with transaction.atomic():
        Receiver.objects.select_for_update().filter(pk=delivery.receiver_id).first()
        if _claimed(now).filter(receiver_id=delivery.receiver_id).exists():
            return False
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
    if outcome.unknown:  # a mail server that is slow to confirm does not fail
        return
    rest = timedelta(seconds=PAUSES[min(delivery.receiver.failures, 3)])
    receiver.update(failures=F("failures") + 1, rests_until=now + rest)
    _give_up_backlog(delivery.receiver, now)


def _give_up_backlog(receiver: Receiver, now: datetime) -> None:
    """Give up what has waited for as long as a series of attempts, if the receiver has failed for that long.

    The messages of a backlog share the few attempts of a failing receiver, so most would never have their own series.
    """
    failures = receiver.failures + 1  # with this one
    if sum(PAUSES[min(number, 3)] for number in range(failures)) < SERIES.total_seconds():  # its rests
        return
    hours = SERIES // timedelta(hours=1) + 1
    late = Delivery.objects.filter(receiver=receiver, state=Delivery.State.WAITING, due_at__lt=now - SERIES)
    answer = f"Given up: the receiver accepted no message for {hours} hours."
    if number := late.update(state=Delivery.State.DEAD, answer=answer):
        log.warning("gave up delivering %d notifications to %s, which always fails", number, receiver)


def _pause(delivery: Delivery, outcome: Outcome) -> timedelta | None:
    """Return the time until the next attempt; None if there is none.

    A message that the receiver may have is repeated, because it must not be lost, but after the longest pause, and not
    beyond the time of a series: three copies at most.
    """
    if outcome.unknown:
        pause = timedelta(seconds=PAUSES[-1])
        return pause if clock.now() + pause < delivery.notification.at + SERIES else None
    if outcome.final or delivery.attempts > len(PAUSES):
        return None
    seconds = PAUSES[delivery.attempts - 1] * random.uniform(1.0, 1.2)  # noqa: S311 — not security-relevant
    return timedelta(seconds=max(seconds, min(outcome.retry_after or 0, 86_400)))
