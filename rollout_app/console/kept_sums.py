"""Cache sums of a rollout's minutes in this process, so that only recent changes of a long rollout are read again.

Ingest counts the commits of each hour of a workload (`HourState.changes`), including late grades. If an hour's count
has not changed, its sums have not changed either.
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
# A router may stamp a minute before the start: ingest accepts minutes up to 7 days old.
STAMPED_BEFORE = timedelta(days=8)
_KEPT_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """`changes` by hour, read before the sums, so that a commit in between is noticed next time."""

    changes: dict[datetime, int]
    slots: dict[int, T]


_KEPT: dict[tuple[Any, ...], _Kept[Any]] = {}


def kept_slots(rollout: Rollout, name: str, seconds: int, read: Read[T]) -> dict[int, T]:
    """Return the sums by slot of `seconds` (its first Unix second), oldest first.

    `read(since)` returns the sums from `since` on, the start of a slot; None: of all minutes.
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
    since = (rollout.started_at or timezone.now()) - STAMPED_BEFORE
    rows = HourState.objects.filter(
        environment=rollout.environment_id, workload=rollout.workload_id, hour__gte=since
    )
    return dict(rows.values_list("hour", "changes"))


def _first_changed(kept: _Kept[Any], changes: dict[datetime, int], seconds: int) -> int:
    """Return the start of the first slot to read again. Always includes the newest one, which may still be filling."""
    changed = [hour for hour, count in changes.items() if kept.changes.get(hour) != count]
    newest = max(kept.slots)
    return min(newest, int(min(changed).timestamp()) // seconds * seconds) if changed else newest
