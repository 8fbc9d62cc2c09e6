"""Record refused attempts as entries. A flood from one actor is folded into one entry with a count.

The first refusals of a minute become entries; later ones are counted. When the minute is over, the count becomes an
entry, written with the actor's next refusal or by the periodic job.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from controlplane.audit.entries import record
from controlplane.audit.models import Entry, RefusalWindow
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, Forbidden, PointsmanError, StaleVersion
from controlplane.core.ids import uuid7

REFUSALS = (Forbidden, Conflict, StaleVersion)  # recorded: well-formed requests that were refused
WINDOW = timedelta(minutes=1)
EACH = 20  # refusals per actor and window that become entries


def record_refusal(
    error: PointsmanError,
    *,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    environment: str = "",
    workload: str = "",
    reason: str = "",
) -> None:
    """Append a refused attempt, in its own transaction.

    Call it after the attempt's transaction was rolled back. If that transaction was inside a wider one (a request with
    an `Idempotency-Key`), the entry is rolled back with it. The error therefore carries the entry's details, and the
    code that rolls back the wider transaction calls `keep_refusal`.
    """
    fields = {
        "actor": actor,
        "action": action,
        "target": target,
        "environment": environment,
        "workload": workload,
        "reason": reason,
        "evidence": {"code": error.code, "detail": error.detail},
        "outcome": "refused",
    }
    error.__dict__["_refusal"] = (_keep(fields), fields)


def is_recorded(error: BaseException) -> bool:
    return "_refusal" in error.__dict__


def keep_refusal(error: BaseException) -> None:
    """Append an error's refusal again if a rollback removed it. Call it outside that transaction."""
    token, fields = error.__dict__.get("_refusal", ("", None))
    if fields is None or RefusalWindow.objects.filter(last=token).exists() or _is_entry(token):
        return
    error.__dict__["_refusal"] = (_keep(fields), fields)


def _is_entry(token: str) -> bool:
    return Entry.objects.filter(hash=token).exists()


def _keep(fields: Mapping[str, Any]) -> str:
    """Append or count the refusal. Return a token that tells later whether it still exists."""
    actor: Actor = fields["actor"]
    with transaction.atomic():
        window = _window_of(actor)
        if window.recorded < EACH:
            window.recorded += 1
            window.save(update_fields=["recorded"])
            return record(**fields).hash
        what = f"{fields['action']} {fields['evidence']['code']}"
        window.folded += 1
        window.counts = {**window.counts, what: window.counts.get(what, 0) + 1}
        window.last = uuid7().hex
        window.save(update_fields=["folded", "counts", "last"])
        return window.last


def _window_of(actor: Actor) -> RefusalWindow:
    """Return the actor's window, locked; restart it if the last minute is over."""
    now = clock.now()
    key = f"{actor.kind}:{actor.id}"
    window, locked = None, RefusalWindow.objects.select_for_update().filter(actor_key=key)
    while window is None:  # the periodic job may delete the row before it is locked
        new = RefusalWindow(actor_key=key, actor_label=actor.label, actor_user_id=actor.user_id, began_at=now)
        RefusalWindow.objects.bulk_create([new], ignore_conflicts=True)
        window = locked.first()
    if _is_over(window, now):
        _fold(window)
        window.began_at, window.recorded, window.folded, window.counts = now, 0, 0, {}
        window.save(update_fields=["began_at", "recorded", "folded", "counts"])
    return window


def _fold(window: RefusalWindow) -> None:
    if not window.folded:
        return
    kind, _, actor_id = window.actor_key.partition(":")
    actor = Actor(kind, actor_id, window.actor_label, window.actor_user_id)  # type: ignore[arg-type]
    record(
        actor=actor,
        action="refusals.folded",
        target=("actor", window.actor_key),
        outcome="refused",
        reason=f"{window.folded} more attempts were refused within a minute.",
        evidence={"count": window.folded, "of": window.counts, "since": window.began_at},
    )


def _is_over(window: RefusalWindow, now: datetime) -> bool:
    """Return whether its minute is over. One that lies ahead began under a clock that has been corrected since."""
    return abs(now - window.began_at) > WINDOW


def fold_old() -> None:
    """Turn the counts of expired windows into entries."""
    now = clock.now()
    over = Q(began_at__lt=now - WINDOW) | Q(began_at__gt=now + WINDOW)
    for pk in RefusalWindow.objects.filter(over).values_list("pk", flat=True):
        with transaction.atomic():
            window = RefusalWindow.objects.select_for_update().filter(pk=pk).first()
            if window is not None and _is_over(window, clock.now()):
                _fold(window)
                window.delete()
