"""Builds what routers receive. `fragment` runs inside the change's transaction, `publish` after its commit.

A snapshot is the environment's header and one fragment per workload. Storing fragments as ready-made text makes the
cost of publishing a change depend on the size of the change, not of the environment.
"""

import gzip
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zstandard
from django.db import transaction

from controlplane.core import signing
from controlplane.web.replies import Header, Reply
from policies_app.models import Assignment, PolicyVersion
from policies_app.snapshots import notices
from policies_app.snapshots.cache import CachedEnvironment, SnapshotBody, SnapshotQuery

log = logging.getLogger(__name__)

FORMAT = 1
# Called with (environment name, a revision of the commit) after a commit; `serving` adds its own at startup. An error
# in one must not reach the person whose change is already committed.
_listeners: list[Callable[[str, int], None]] = []


def on_publish(listener: Callable[[str, int], None]) -> None:
    _listeners.append(listener)


def off_publish(listener: Callable[[str, int], None]) -> None:
    _listeners.remove(listener)


@dataclass(frozen=True, slots=True)
class _Publication:
    """What a commit calls. `told` holds the environments that this commit has published."""

    environment: str
    revision: int
    told: set[str]

    def __call__(self) -> None:
        if self.environment not in self.told:
            self.told.add(self.environment)
            publish(self.environment, self.revision)


def publish_with_commit(environment: str, revision: int) -> None:
    """Publish after the commit, once for all revisions that the transaction draws in this environment.

    The set is found through Django's list, which a rollback (also to a savepoint) shortens.
    """
    registered = (entry[1] for entry in reversed(transaction.get_connection().run_on_commit))
    earlier = next((each for each in registered if isinstance(each, _Publication)), None)
    told = set() if earlier is None else earlier.told
    transaction.on_commit(_Publication(environment, revision, told))


def publish(environment: str, revision: int) -> None:
    """Notify every process that serves this environment. Only a hint: each process also polls the revision."""
    notices.send(environment, revision)
    for listener in list(_listeners):
        try:
            listener(environment, revision)
        except Exception:
            log.exception(
                "a listener failed on %s r%s; it will poll the revision itself", environment, revision
            )


def _version_json(version: PolicyVersion | None) -> str:
    if version is None:
        return "null"
    # `canonical` is inserted verbatim, so that its SHA-256 is the digest next to it.
    return f'{{"version":{version.number},"digest":"{version.digest}","policy":{version.canonical}}}'


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def fragment(assignment: Assignment) -> str:
    """Return the workload's entry in the snapshot as JSON text (protocol version 1)."""
    rollout = assignment.rollout and {
        "id": str(assignment.rollout),
        "stage": assignment.stage,
        "mode": assignment.mode,
        "share_pcm": assignment.share_pcm,
        "salt": assignment.salt,
        "mirror_pcm": assignment.mirror_pcm,
        "cost_cap_nusd": assignment.cost_cap_nusd,
    }
    pin = {"model": assignment.pin_model, "reason": assignment.pin_reason} if assignment.pin_model else None
    return (
        f'{{"revision":{assignment.revision},"unit":{_dump(assignment.workload.unit)},'
        f'"baseline":{_version_json(assignment.baseline)},"candidate":{_version_json(assignment.candidate)},'
        f'"rollout":{_dump(rollout)},"pin":{_dump(pin)}}}'
    )


def plain_body(environment: CachedEnvironment, query: SnapshotQuery) -> bytes:
    """Return the snapshot's bytes: the whole selection, or its changes after `since`.

    They say what was requested, because a signature covers only the body: without it, somebody who changes the query on
    the way could take workloads from a router, or make it skip a change.
    """
    header = environment.header
    requested: dict[str, Any] = {} if query.since is None else {"since": query.since}
    if query.asked:
        requested["selection"] = query.asked
    first = _dump(
        {
            "format": FORMAT,
            "environment": header.name,
            "epoch": header.epoch,
            "revision": header.revision,
            "full": query.since is None,
            **requested,
            "poll_interval_ms": header.poll_interval_ms,
        }
    )
    selected = environment.selected(query)
    workloads = b",".join(b'"%s":%s' % (name.encode(), fragment) for name, fragment in selected)
    removed = _dump(environment.removed_since(query)).encode()
    prices = _dump(environment.prices(query)).encode()
    return b'%s,"workloads":{%s},"prices":%s,"removed":%s}' % (
        first[:-1].encode(),
        workloads,
        prices,
        removed,
    )


def signed_body(environment: CachedEnvironment, query: SnapshotQuery) -> SnapshotBody:
    """Return the body with its tag and signature, both computed before compression.

    The cost grows with the body, so large ones are built off the event loop.
    """
    plain, header = plain_body(environment, query), environment.header
    etag = f'"{header.epoch}.{header.revision}.{hashlib.sha256(plain).hexdigest()[:16]}"'.encode()
    headers = [
        *_headers(etag, header.revision),
        (b"pointsman-signature", signing.sign_snapshot(plain).encode()),
    ]
    return SnapshotBody(plain, etag, headers, Reply(304, headers))


def unsigned_304(etag: bytes, revision: int) -> Reply:
    """Return a 304 for a body that this process never built, and so without a signature."""
    return Reply(304, _headers(etag, revision))


def encoded(body: SnapshotBody, encoding: str) -> Reply:
    """Return the 200 response in an encoding: "zstd", "gzip", or "" for the plain body."""
    if encoding == "zstd":
        sent = zstandard.compress(body.plain, 3)
    elif encoding == "gzip":
        sent = gzip.compress(body.plain, 6, mtime=0)
    else:
        sent = body.plain
    content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(sent))]
    if encoding:
        content.append((b"content-encoding", encoding.encode()))
    return Reply(200, [*content, *body.headers], sent)


def _headers(etag: bytes, revision: int) -> list[Header]:
    return [
        (b"etag", etag),
        (b"cache-control", b"private, max-age=1, stale-if-error=604800"),
        (b"vary", b"accept-encoding, authorization"),
        (b"pointsman-revision", b"%d" % revision),
    ]
