"""Sums of a rollout's minutes, kept in this process: of a long rollout only what changed since is read again.

Ingest counts the commits of each hour of a workload (`HourState.changes`), late grades included. Hours whose count is
as it was have the sums that they had.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from django.utils import timezone

from rollout_app.models import Rollout
from rollout_app.review.models import HourState

T = TypeVar("T")
Read = Callable[[datetime | None], dict[int, T]]
# A router may stamp a minute before the start: ingest takes what is up to 7 days old.
_STAMPED_BEFORE = timedelta(days=8)
_KEPT_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """`changes`: by hour, as they were before the sums were read, so that a commit in between is seen next time."""

    changes: dict[datetime, int]
    slots: dict[int, T]


_KEPT: dict[tuple[Any, ...], _Kept[Any]] = {}


def kept_slots(rollout: Rollout, name: str, seconds: int, read: Read[T]) -> dict[int, T]:
    """The sums by slot of `seconds` (its first Unix second), oldest first.

    `read(since)` gives those of the minutes from `since` on, the start of a slot; None: of all minutes.
    """
    key, changes = (rollout.pk, name, seconds), _changes(rollout)
    kept = _KEPT.get(key)
    if kept is None or not kept.slots:
        slots = read(None)
    else:
        first = _first_changed(kept, changes, seconds)
        old = {slot: sums for slot, sums in kept.slots.items() if slot < first}
        slots = old | read(datetime.fromtimestamp(first, UTC))
    if len(_KEPT) >= _KEPT_AT_MOST:
        _KEPT.clear()
    _KEPT[key] = _Kept(changes, slots)
    return dict(sorted(slots.items()))


def _changes(rollout: Rollout) -> dict[datetime, int]:
    since = (rollout.started_at or timezone.now()) - _STAMPED_BEFORE
    rows = HourState.objects.filter(
        environment=rollout.environment_id, workload=rollout.workload_id, hour__gte=since
    )
    return dict(rows.values_list("hour", "changes"))


def _first_changed(kept: _Kept[Any], changes: dict[datetime, int], seconds: int) -> int:
    """The start of the first slot to read again. The newest one always is: it may still be filling."""
    changed = [hour for hour, count in changes.items() if kept.changes.get(hour) != count]
    newest = max(kept.slots)
    return min(newest, int(min(changed).timestamp()) // seconds * seconds) if changed else newest
