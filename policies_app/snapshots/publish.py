"""Publishes each environment's snapshot to a bucket, for routers that poll a CDN instead of a gateway.

    sweep → due? → claim the row → fetch the object's tag → read the environment → put, if the tag is unchanged

A commit triggers the sweep, and the table of periodic jobs repeats it, so a lost trigger costs two seconds.

An older snapshot never overwrites a newer one, because of the order of three steps: fetch the object's tag, then read
the environment, then write on condition that the tag is unchanged. A write in between makes this one fail, so even a
process that was delayed for an hour does no harm. The claim only avoids duplicate work.
"""

import logging
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q

from controlplane.core import clock, signing
from controlplane.core.ids import uuid7
from policies_app.models import Environment, Published, Revision
from policies_app.snapshots import build, cache, high_water, object_store
from policies_app.snapshots.cache import CachedEnvironment, SnapshotBody, SnapshotHeader, SnapshotQuery
from policies_app.snapshots.object_store import BucketError, Overtaken, StoredObject

log = logging.getLogger(__name__)

PATH = "router/v1/snapshot"  # below the environment's path, so that it is polled like a gateway
EVERYTHING = SnapshotQuery(None, None)
CLAIM = timedelta(seconds=90)  # longer than a `head` and a `put` may take
CHECKED_AFTER = timedelta(seconds=60)  # interval for checking the object itself when nothing has changed
ROUNDS = 3  # attempts, if others write at the same time
RETRY_FIRST_S, RETRY_MOST_S = 2.0, 60.0
_TAG = re.compile(r'"([^".]{1,64})\.(\d{1,18})\.[0-9a-f]{16}"')

MADE_AT = "pointsman-made-at"  # metadata: when the object's revision was made
_WHY_LATER = (
    "does another instance publish there, or was this one restored from a backup? Then run manage.py post_restore, "
    "or delete the object to publish this one."
)

_changed = threading.Event()
_one_at_a_time = threading.Lock()
# The last state read of each environment, so that the next read only fetches changes.
_known: dict[int, CachedEnvironment] = {}


class PublishedContents(NamedTuple):
    """What determines a published object: equal contents mean equal bytes and signature at the same address."""

    address: str
    epoch: str
    revision: int
    poll_interval_ms: int
    key_id: str


def sweep() -> int:
    """Publish what is not yet published. Return how many objects were written. Does nothing without a bucket."""
    if not settings.SNAPSHOT_BUCKET:
        return 0
    with _one_at_a_time:
        now = clock.now()
        rows = {row.environment_id: row for row in Published.objects.all()}
        due = [
            header for header in cache.read_headers().values() if _is_due(header, rows.get(header.pk), now)
        ]
        return sum(_publish(header) for header in due)


def follow(sweep: Callable[[], object], stopping: threading.Event) -> None:
    """Sweep soon after each commit of this process (a loop for the runner). An error only costs that sweep."""
    if not settings.SNAPSHOT_BUCKET:
        return
    build.on_publish(_nudge)
    try:
        while not stopping.is_set():
            if _changed.wait(timeout=0.5):
                _changed.clear()
                _try_sweep(sweep)
    finally:
        build.off_publish(_nudge)


def _try_sweep(sweep: Callable[[], object]) -> None:
    try:
        sweep()
    except Exception:
        log.exception("a triggered sweep failed; the periodic job will retry")


def _nudge(environment: str, revision: int) -> None:
    _changed.set()


def key_of(environment: str) -> str:
    """Return the object's key: `<prefix>/<environment>/router/v1/snapshot`."""
    return "/".join(part for part in (settings.SNAPSHOT_PREFIX.strip("/"), environment, PATH) if part)


def _wanted(header: SnapshotHeader) -> PublishedContents:
    address = f"{settings.SNAPSHOT_BUCKET}/{key_of(header.name)}"
    return PublishedContents(
        address, header.epoch, header.revision, header.poll_interval_ms, signing.signers_id()
    )


def _is_due(header: SnapshotHeader, row: Published | None, now: datetime) -> bool:
    if row is None:
        return True
    # A time further in the future than we ever set was written by a clock that has been corrected since.
    if row.retry_at is not None and now < row.retry_at <= now + timedelta(seconds=RETRY_MOST_S):
        return False
    fresh = row.checked_at is not None and now - CHECKED_AFTER < row.checked_at <= now + CLAIM
    return _published(row) != _wanted(header) or not fresh


def _published(row: Published) -> PublishedContents:
    return PublishedContents(row.address, row.epoch, row.revision, row.poll_interval_ms, row.key_id)


# --- state of the publication --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublicationState:
    """The state of an environment's publication, for the fleet page and /metrics."""

    environment: str
    revision: int  # in the bucket; -1: none
    behind_s: float  # how long the bucket has lacked what is served; 0: it is current
    failures: int  # consecutive
    error: str  # of the last attempt
    failing_since: datetime | None
    published_at: datetime | None


def states(environment: int | None = None) -> list[PublicationState]:
    """Return the state of every environment, or of one; empty without a bucket."""
    if not settings.SNAPSHOT_BUCKET:
        return []
    now = clock.now()
    rows = {row.environment_id: row for row in Published.objects.all()}
    headers = [header for header in cache.read_headers().values() if environment in (None, header.pk)]
    return [
        _state(header, rows.get(header.pk) or Published(environment_id=header.pk), now) for header in headers
    ]


def _state(header: SnapshotHeader, row: Published, now: datetime) -> PublicationState:
    return PublicationState(
        header.name,
        row.revision,
        max(0.0, (now - _behind_since(header, row)).total_seconds())
        if _published(row) != _wanted(header)
        else 0.0,
        row.failures,
        row.error,
        row.failing_since,
        row.published_at,
    )


def _behind_since(header: SnapshotHeader, row: Published) -> datetime:
    """Return the time of the first change that the bucket lacks; for a change without a revision, the last
    publication."""
    missing = Revision.objects.filter(environment_id=header.pk)
    if row.epoch == header.epoch:
        missing = missing.filter(number__gt=row.revision)
    first = missing.order_by("number").values_list("at", flat=True).first()
    if first is None:
        first = row.published_at
    return first or Environment.objects.values_list("created_at", flat=True).get(pk=header.pk)


# --- one environment ------------------------------------------------------------------------------------


def _publish(header: SnapshotHeader) -> bool:
    """Publish what is served now. Return whether that required a write."""
    claim = uuid7()
    row = _claimed(header.pk, claim)
    if row is None:
        return False  # another process is publishing it
    try:
        done = _bring_up_to_date(header, row)
    except BucketError as error:
        _failed(header.name, row, claim, str(error))
        return False
    except DatabaseError:
        raise  # the claim will expire
    except Exception as error:
        if not row.failures:
            log.exception("%s could not be published", header.name)
        _failed(header.name, row, claim, f"{type(error).__name__}: {error}")
        return False
    if row.failures:
        log.info("%s is published again", header.name)
    now = clock.now()
    fields: dict[str, Any] = {"checked_at": now, "failures": 0, "failing_since": None, "error": ""}
    if done is not None:
        contents, tag = done
        fields |= {**contents._asdict(), "tag": tag, "published_at": now}
    _release(row, claim, retry_at=None, **fields)
    return done is not None


def _claimed(environment: int, claim: UUID) -> Published | None:
    now = clock.now()
    Published.objects.get_or_create(environment_id=environment)
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now) | Q(claimed_until__gt=now + CLAIM)
    mine = Published.objects.filter(free, environment_id=environment)
    if not mine.update(claim=claim, claimed_until=now + CLAIM):
        return None
    return Published.objects.get(environment_id=environment)


def _release(row: Published, claim: UUID, **fields: Any) -> None:
    """Save the result, unless the claim has expired and another process holds it."""
    Published.objects.filter(pk=row.pk, claim=claim).update(claim=None, claimed_until=None, **fields)


def _bring_up_to_date(header: SnapshotHeader, row: Published) -> tuple[PublishedContents, str] | None:
    """Write the object until it is current. None if it already was, or if the environment is gone."""
    store, key = object_store.configured(), key_of(header.name)
    for _ in range(ROUNDS):
        seen = store.head(key)
        # After fetching the tag: see the module docstring.
        cached = cache.read_environment(header, _known.get(header.pk))
        if cached is None:
            _known.pop(header.pk, None)
            return None
        _known[header.pk] = cached
        _refuse_older(cached.header, seen)
        wanted = _wanted(cached.header)
        if seen is not None and seen.tag == row.tag and wanted == _published(row):
            return None
        body = build.signed_body(cached, EVERYTHING)
        try:
            return wanted, store.put(key, body.plain, seen, **_parameters(body, cached.header))
        except Overtaken:
            log.info("%s: another process wrote first; trying again", key)
    raise BucketError(f"Other processes wrote the object {ROUNDS} times in a row.")


def _refuse_older(header: SnapshotHeader, seen: StoredObject | None) -> None:
    """Refuse to overwrite a later snapshot: a restored or copied instance must not take routers back."""
    match = _TAG.fullmatch(seen.metadata.get("pointsman-etag", "")) if seen else None
    if match is None:
        return
    there = (match[1], int(match[2]))  # epochs start with their creation time, so they sort
    if there > (header.epoch, header.revision):
        raise BucketError(
            f"The bucket holds a later snapshot (epoch {there[0]}, revision {there[1]}) than this instance "
            f"serves (epoch {header.epoch}, revision {header.revision}): {_WHY_LATER}"
        )
    made_at = seen.metadata.get(MADE_AT) if seen else ""
    if made_at and there[0] == header.epoch and made_at != high_water.made_at(header, there[1]):
        # It was restored, and then changed as often as before: the same numbers stand for other contents.
        raise BucketError(
            f"The bucket holds another revision {there[1]} than this instance made: {_WHY_LATER}"
        )


def _parameters(body: SnapshotBody, header: SnapshotHeader) -> dict[str, Any]:
    headers = dict(body.headers)
    return {
        "ContentType": "application/json",
        "CacheControl": f"public, max-age={settings.SNAPSHOT_MAX_AGE}, stale-if-error=604800",
        "Metadata": {
            "pointsman-signature": headers[b"pointsman-signature"].decode(),
            "pointsman-etag": body.etag.decode(),
            "pointsman-revision": str(header.revision),
            MADE_AT: high_water.made_at(header, header.revision),
        },
    }


def _failed(name: str, row: Published, claim: UUID, error: str) -> None:
    """Record a failure, and wait longer each time. Logged once; the fleet page shows it while it lasts."""
    if not row.failures:
        log.warning("%s cannot be published (%s); routers continue with the bucket's contents", name, error)
    now, failures = clock.now(), row.failures + 1
    wait = min(RETRY_FIRST_S * 2 ** min(failures - 1, 10), RETRY_MOST_S)
    wait *= random.uniform(0.5, 1)  # noqa: S311 — spreads the load; not security-relevant
    _release(
        row,
        claim,
        failures=failures,
        failing_since=row.failing_since or now,
        error=error[:400],
        retry_at=now + timedelta(seconds=wait),
    )
