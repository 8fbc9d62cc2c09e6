"""Writes notifications in the transaction of the change they report (transactional outbox). Sends nothing.

A change that is rolled back is never reported, and a committed one always is, even if the process dies in between. The
audit log calls `tell_of_entry` with each entry, and `tell_of_checkpoint` with each checkpoint.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from controlplane.audit.models import Checkpoint, Entry
from controlplane.core import clock
from controlplane.core.ids import uuid7
from controlplane.notifications import events
from controlplane.notifications.models import BreakGlass, Delivery, Notification, Receiver

KEPT_FOR = timedelta(days=30)  # older notifications and their deliveries are pruned
BATCH = 200  # notifications handled by one `spread`


def emit(type_: str, sentence: str, *, environment: str = "", key: str | None = None, **data: Any) -> bool:
    """Store a notification, in the caller's transaction. With a `key` it is stored only once; False if it existed."""
    values = {
        "type": type_,
        "environment": environment,
        "at": clock.now(),
        "data": {"sentence": sentence, "environment": environment, **data},
    }
    if key is None:
        Notification.objects.create(**values)
        return True
    return Notification.objects.get_or_create(key=key[:200], defaults=values)[1]


def tell_of_entry(entry: Entry, body: Mapping[str, Any]) -> None:
    """Report an audit entry, in its transaction. A break-glass entry also opens a review."""
    names = ("action", "workload", "reason", "target")
    for type_, sentence in events.of_entry(entry, body):
        if type_ == events.BREAK_GLASS:
            _open(entry, body)
        emit(
            type_,
            sentence,
            environment=body["environment"],
            actor=body["actor"]["label"],
            entry=entry.seq,
            **{name: body[name] for name in names},
        )


def _open(entry: Entry, body: Mapping[str, Any]) -> None:
    BreakGlass.objects.create(
        action=entry.action,
        environment=entry.environment,
        workload=entry.workload,
        target_kind=entry.target_kind,
        target_id=entry.target_id,
        entry=entry.seq,
        by_label=entry.actor_label,
        by_user_id=body["actor"]["user_id"],
        reason=entry.reason,
        at=entry.at,
    )


def open_lost() -> None:
    """Open reviews for break-glass entries without a row: from before the table existed, or deleted by hand."""
    entries = Entry.objects.filter(action__endswith=".break_glass", outcome="done")
    for entry in entries.exclude(seq__in=BreakGlass.objects.values("entry")).order_by("seq"):
        _open(entry, json.loads(bytes(entry.body)))


def tell_of_checkpoint(checkpoint: Checkpoint) -> None:
    emit(
        events.CHECKPOINT,
        f"Checkpoint of the audit log at entry {checkpoint.seq}.",
        seq=checkpoint.seq,
        hash=checkpoint.hash,
        note=checkpoint.note,
    )


def spread() -> int:
    """Create the deliveries of new notifications, for each receiver that wants them. Concurrent calls are safe."""
    new = list(Notification.objects.filter(spread=False).order_by("id")[:BATCH])
    receivers = list(Receiver.objects.filter(enabled=True)) if new else []
    for notification in new:
        with transaction.atomic():
            wanted = [r for r in receivers if notification.type != events.TEST and wants(r, notification)]
            rows = [_delivery(notification, receiver) for receiver in wanted]
            Delivery.objects.bulk_create(rows, ignore_conflicts=True)
            Notification.objects.filter(pk=notification.pk).update(spread=True)
    return len(new)


def wants(receiver: Receiver, notification: Notification) -> bool:
    """Return whether a receiver wants a notification. Those without an environment go to every receiver."""
    if receiver.events and notification.type not in receiver.events:
        return False
    return not (receiver.environments and notification.environment) or (
        notification.environment in receiver.environments
    )


def _delivery(notification: Notification, receiver: Receiver) -> Delivery:
    return Delivery(pk=uuid7(), notification=notification, receiver=receiver, due_at=notification.at)


def test_message(receiver: Receiver, *, by: str) -> Delivery:
    """Create a test message to this receiver only, in the caller's transaction."""
    notification = Notification.objects.create(
        type=events.TEST,
        at=clock.now(),
        spread=True,
        data={
            "sentence": f"This is a test of {receiver.name}, sent by {by}.",
            "environment": "",
            "actor": by,
        },
    )
    delivery = _delivery(notification, receiver)
    delivery.save(force_insert=True)
    return delivery


def prune() -> int:
    """Delete old notifications, except those that wait for a receiver that is enabled."""
    since = clock.now() - KEPT_FOR
    off = Delivery.objects.filter(
        state=Delivery.State.WAITING, receiver__enabled=False, notification__at__lt=since
    )
    off.update(state=Delivery.State.DEAD, answer="Given up: the receiver is disabled.")
    old = Notification.objects.filter(at__lt=since, spread=True)
    waiting = Q(deliveries__state=Delivery.State.WAITING)
    return old.exclude(pk__in=old.filter(waiting).values("pk")).delete()[0]
