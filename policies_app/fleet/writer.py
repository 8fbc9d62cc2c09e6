"""Writes what a gateway process has heard from its routers every two seconds, by the database's clock."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q

from controlplane.access.authentication import note_used
from controlplane.access.models import Key
from controlplane.core import clock
from controlplane.core.threads import LoopThread
from policies_app.fleet import listening
from policies_app.fleet.buffer import FleetBuffer, HeardRouter, RouterId
from policies_app.fleet.readback import TOGETHER
from policies_app.models import Assignment, Environment, Router

FLUSHED_EVERY_S = 2.0
FORGOTTEN_AFTER = timedelta(days=7)
LEFT_FORGOTTEN_AFTER = timedelta(hours=1)  # longer than any gateway takes to write what it heard earlier

Stamp = Callable[[float], datetime]  # converts this process's `time.monotonic()` to the database's clock


class FleetWriter(LoopThread):
    """The thread that empties the buffer, one per process. A rollback's readback depends on it.

    After a failed write, the next polls provide the data again.
    """

    def __init__(self, buffer: FleetBuffer) -> None:
        super().__init__("fleet-writer")
        self._buffer = buffer
        self._noted_at = -math.inf

    def round(self) -> float:
        flush(self._buffer)
        if time.monotonic() - self._noted_at >= listening.NOTED_EVERY_S:
            clock.running.sync()
            listening.note_listening()  # after the flush, so that everything heard until now is stored
            self._noted_at = time.monotonic()
        return FLUSHED_EVERY_S

    def finish(self) -> None:
        self.round()


def flush(buffer: FleetBuffer) -> None:
    """Write what was heard. After a failed write, the next polls provide it again, or it is kept for the next."""
    now = time.monotonic()
    due, keys, partly = buffer.take_due(now), buffer.take_used_keys(now), buffer.take_partly(now)
    if not due and not keys and not partly:
        return
    try:
        at = clock.now()
        _upsert(due, lambda monotonic: at - timedelta(seconds=now - monotonic))
    except Exception:
        buffer.put_back(due)
        raise
    buffer.note_written(due, now)
    # A router without a row is recorded with its next report.
    buffer.note_partly([router for router in partly if _note_partly(router, at)], now)
    # Last, because nothing depends on it. A key that is left out is written after its next use.
    buffer.note_used_keys(note_used(Key.objects.filter(pk__in=keys), at), now)


def _note_partly(router: RouterId, at: datetime) -> bool:
    environment, instance = router
    return bool(
        Router.objects.filter(environment=environment, instance=instance).update(reported_partly_at=at)
    )


def prune() -> int:
    """Delete routers not heard from for a week, and those that left more than an hour ago."""
    now = clock.now()
    left = Q(left_at__lt=now - LEFT_FORGOTTEN_AFTER, polled_at__lte=F("left_at") + TOGETHER)
    deleted, _ = Router.objects.filter(Q(polled_at__lt=now - FORGOTTEN_AFTER) | left).delete()
    listening.prune()
    return deleted


def _upsert(heard: dict[RouterId, HeardRouter], stamp: Stamp) -> None:
    """Insert or update the rows, changing only the columns about which something was heard.

    Rows are written in the order of (environment, instance), in one transaction per set of columns, so that two
    processes never deadlock.
    """
    living = set(Environment.objects.values_list("pk", flat=True)) if heard else set()
    routers = sorted(router for router in heard if router[0] in living)
    refusing = [router for router in routers if heard[router].refusals]
    before, served = _rejections(refusing), _served_names(refusing)
    rows: dict[tuple[str, ...], list[Router]] = defaultdict(list)
    for router in routers:
        latest, at = heard[router], stamp(heard[router].at)
        columns = _columns(latest, at, stamp)
        if latest.refusals:
            stamped = {name: refusal | {"at": at.isoformat()} for name, refusal in latest.refusals.items()}
            known = before.get(router, {}) | stamped
            # Only what is served can be refused. A router could fill its row with any other names.
            columns["rejected"] = {name: known[name] for name in known if (router[0], name) in served}
        row = Router(environment_id=router[0], instance=router[1], first_polled_at=at, **columns)
        # What was heard late must not replace the time at which another process has heard the router since.
        changed = columns.keys() - {"client", "polled_at"} if latest.late else columns
        rows[tuple(column for column in columns if column in changed)].append(row)
    for columns_heard, of_these in rows.items():
        Router.objects.bulk_create(
            of_these,
            batch_size=500,
            update_conflicts=True,
            unique_fields=["environment", "instance"],
            update_fields=columns_heard,  # without `first_polled_at`, which only an insert sets
        )


def _columns(heard: HeardRouter, at: datetime, stamp: Stamp) -> dict[str, Any]:
    columns: dict[str, Any] = {"client": heard.client, "polled_at": at}
    if heard.tag is not None:
        columns |= {"epoch": heard.tag.epoch, "revision": heard.tag.revision}
    if heard.ack is not None:
        columns |= {"acked_epoch": heard.ack.epoch, "acked_revision": heard.ack.revision}
        columns["acked_at"] = stamp(heard.acked_at)
    if heard.left:
        columns["left_at"] = at
    if heard.clock_ahead_s is not None:
        columns |= {"clock_ahead_s": heard.clock_ahead_s, "clock_ahead_at": at}
    if (heard.tag and heard.tag.revision) or (heard.ack and heard.ack.revision):
        columns["applied_at"] = at
    return columns


def _rejections(routers: Iterable[RouterId]) -> dict[RouterId, dict[str, Any]]:
    """Return the stored refusals of the few routers that have any."""
    environments = {environment for environment, _ in routers}
    rows = Router.objects.filter(environment_id__in=environments).exclude(rejected={})
    return {(e, i): r for e, i, r in rows.values_list("environment_id", "instance", "rejected")}


def _served_names(routers: Iterable[RouterId]) -> set[tuple[int, str]]:
    """Return (environment, workload) of everything served in the environments of these routers."""
    served = Assignment.objects.filter(environment__in={environment for environment, _ in routers})
    return set(served.values_list("environment_id", "workload__name"))
