"""Writes down every two seconds what a gateway process has heard of its routers."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection

from controlplane.access.models import Key
from controlplane.core import clock
from policies_app.fleet.buffer import FleetBuffer, HeardRouter, RouterId
from policies_app.models import Environment, Router

log = logging.getLogger(__name__)

FLUSHED_EVERY_S = 2.0
FORGOTTEN_AFTER = timedelta(days=7)


class FleetWriter(threading.Thread):
    """The one thread of a process that empties the buffer: a rollback's readback waits for it."""

    def __init__(self, buffer: FleetBuffer) -> None:
        super().__init__(name="fleet-writer", daemon=True)
        self._buffer = buffer
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(FLUSHED_EVERY_S):
            self._flush_safely()
        self._flush_safely()
        connection.close()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._ending.set()
        self.join(timeout=30)

    def _flush_safely(self) -> None:
        try:
            flush(self._buffer)
        except DatabaseError:
            log.warning("the fleet could not be written; the next polls tell it again", exc_info=True)
            connection.close()


def flush(buffer: FleetBuffer) -> None:
    """Write what was heard. What could not be written is heard again with the next poll."""
    now = time.time()
    due, keys = buffer.take_due(now), buffer.take_used_keys(now)
    if not due and not keys:
        return
    _upsert(due)
    Key.objects.filter(pk__in=keys).update(last_used_at=clock.now())
    buffer.note_written(due, keys, now)


def prune() -> int:
    """Forget routers that have not been heard of for a week."""
    deleted, _ = Router.objects.filter(polled_at__lt=clock.now() - FORGOTTEN_AFTER).delete()
    return deleted


def _upsert(heard: dict[RouterId, HeardRouter]) -> None:
    """Write each row with those columns only of which something was heard.

    In the order of (environment, instance) and one transaction for each set of columns, so that two processes
    never deadlock.
    """
    living = set(Environment.objects.values_list("pk", flat=True)) if heard else set()
    routers = sorted(router for router in heard if router[0] in living)
    before = _rejections(router for router in routers if heard[router].refusals)
    rows: dict[tuple[str, ...], list[Router]] = defaultdict(list)
    for router in routers:
        said = heard[router]
        columns = _columns(said)
        if said.refusals:
            columns["rejected"] = {**before.get(router, {}), **said.refusals}
        row = Router(environment_id=router[0], instance=router[1], **columns)
        rows[tuple(columns)].append(row)
    for columns_heard, of_these in rows.items():
        Router.objects.bulk_create(
            of_these,
            batch_size=500,
            update_conflicts=True,
            unique_fields=["environment", "instance"],
            update_fields=columns_heard,
        )


def _columns(heard: HeardRouter) -> dict[str, Any]:
    at = datetime.fromtimestamp(heard.at, UTC)
    columns: dict[str, Any] = {"client": heard.client, "polled_at": at}
    if heard.tag is not None:
        columns |= {"epoch": heard.tag.epoch, "revision": heard.tag.revision}
    if heard.ack is not None:
        acked_at = datetime.fromtimestamp(heard.acked_at, UTC)
        columns |= {
            "acked_epoch": heard.ack.epoch,
            "acked_revision": heard.ack.revision,
            "acked_at": acked_at,
        }
    if (heard.tag and heard.tag.revision) or (heard.ack and heard.ack.revision):
        columns["applied_at"] = at
    return columns


def _rejections(routers: Iterable[RouterId]) -> dict[RouterId, dict[str, Any]]:
    """The refusals on record, of the few routers that have any."""
    environments = {environment for environment, _ in routers}
    rows = Router.objects.filter(environment_id__in=environments).exclude(rejected={})
    return {(e, i): r for e, i, r in rows.values_list("environment_id", "instance", "rejected")}
