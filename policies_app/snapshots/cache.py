"""An in-memory copy of what each environment serves: immutable, and replaced as a whole when something changes.

A cached environment is one revision. It is read in a single statement, which sees a consistent revision even while the
next one is being committed. It keeps each workload's ready-made fragment, so the next revision costs only what changed
and shares the rest.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from django.db import connection

from controlplane.core import signing
from controlplane.web.replies import Header, Reply
from policies_app.models import MOST_POLL_INTERVAL_MS, Assignment, Environment, Revision, Workload

Selection = frozenset[str] | None  # workload names; None: all


class Fragment(NamedTuple):
    """A workload's ready-made JSON, and the environment's revision that created it."""

    revision: int
    text: bytes
    prices: bytes = b"{}"  # JSON with the prices of the models in its documents


class SnapshotHeader(NamedTuple):
    """One environment as read by the watcher. Two equal headers mean that nothing has changed."""

    pk: int
    name: str
    epoch: str
    revision: int
    poll_interval_ms: int  # as served
    signers: str = ""  # the signing keys (`signing.signers_id`); if they change, every body is rebuilt


class SnapshotQuery(NamedTuple):
    """The content requested: a selection, and the revision to start from (None: everything).

    asked   the workloads that the request names, sorted. The selection is what the key may read of them
    """

    selection: Selection
    since: int | None
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotBody:
    """A body before compression, with the headers shared by 200 and 304, and the responses built from it."""

    plain: bytes
    etag: bytes
    headers: list[Header]
    unchanged: Reply
    by_encoding: dict[str, Reply] = field(default_factory=dict)


class NotModified(NamedTuple):
    """A 304, with the epoch and revision that its recipients have applied according to their tags."""

    epoch: str
    revision: int
    reply: Reply


# The raw If-None-Match, the raw query, and the key's workloads. The same combination gets the same 304.
Asked = tuple[bytes, bytes, Selection]


@dataclass(slots=True, eq=False)
class CachedEnvironment:
    """One environment at one revision. Its content never changes; the rest is a cache, filled on demand.

    bodies        by query
    unchanged     the 304 for each tag of this revision
    not_modified  the 304 for each poll already answered with one
    in_flight     builds in progress
    waiters       its long polls, woken when the next revision replaces it
    """

    header: SnapshotHeader
    fragments: dict[str, Fragment]  # ordered by revision, so that a delta reads only the end
    removed: Mapping[str, int]  # name → the revision that removed it
    bodies: dict[SnapshotQuery, SnapshotBody] = field(default_factory=dict)
    unchanged: dict[bytes, Reply] = field(default_factory=dict)
    not_modified: dict[Asked, NotModified] = field(default_factory=dict)
    in_flight: dict[Any, "asyncio.Task[Any]"] = field(default_factory=dict)
    waiters: set["asyncio.Future[None]"] = field(default_factory=set)

    def selected(self, query: SnapshotQuery) -> list[tuple[str, bytes]]:
        """Return the (name, fragment) pairs to send, sorted by name so that every process builds the same bytes."""
        return [(name, self.fragments[name].text) for name in sorted(self._names(query))]

    def prices(self, query: SnapshotQuery) -> dict[str, Any]:
        """Return the prices of the models in those fragments, by catalogue name, sorted."""
        merged: dict[str, Any] = {}
        for text in sorted({self.fragments[name].prices for name in self._names(query)}):
            merged |= msgspec.json.decode(text)
        return dict(sorted(merged.items()))

    def size(self, query: SnapshotQuery) -> int:
        """Return the size of those fragments in bytes."""
        return sum(len(self.fragments[name].text) for name in self._names(query))

    def _names(self, query: SnapshotQuery) -> Iterable[str]:
        fragments, selection, since = self.fragments, query.selection, query.since
        if since is None:
            return fragments.keys() if selection is None else fragments.keys() & selection
        newer = takewhile(lambda name: fragments[name].revision > since, reversed(fragments))
        return [name for name in newer if selection is None or name in selection]

    def removed_since(self, query: SnapshotQuery) -> list[str]:
        selection, since = query.selection, query.since
        if since is None:
            return []
        gone = (name for name, revision in self.removed.items() if revision > since)
        return sorted(name for name in gone if selection is None or name in selection)


SnapshotCache = dict[str, CachedEnvironment]  # by the environment's name


def read_headers() -> dict[str, SnapshotHeader]:
    """Return every environment's current header, in one query."""
    rows = Environment.objects.values_list("pk", "name", "epoch", "revision", "poll_interval_ms")
    signers = signing.signers_id()
    return {
        name: SnapshotHeader(pk, name, epoch, revision, _served_interval(interval), signers)
        for pk, name, epoch, revision, interval in rows
    }


def _served_interval(stored: int) -> int:
    """Return the poll interval for routers. A row from before there was a limit could keep them deaf for weeks."""
    return min(stored, MOST_POLL_INTERVAL_MS)


# One statement sees one point in time. With two, the first could miss a change that the second sees. Only our own
# table names are formatted in; values are bound.
_READ = """
SELECT 0, e.epoch, e.revision, e.poll_interval_ms, '', 0, '', '' FROM {environment} e WHERE e.id = %s
UNION ALL
SELECT 1, '', 0, 0, w.name, a.revision, a.fragment, a.prices FROM {assignment} a
  JOIN {workload} w ON w.id = a.workload_id WHERE a.environment_id = %s AND a.revision > %s
UNION ALL
SELECT 2, '', 0, 0, w.name, r.number, '', '' FROM {revision} r JOIN {workload} w ON w.id = r.workload_id
 WHERE r.environment_id = %s AND r.removed AND r.number > %s
"""
_TABLES = {
    "environment": Environment._meta.db_table,
    "assignment": Assignment._meta.db_table,
    "workload": Workload._meta.db_table,
    "revision": Revision._meta.db_table,
}


def read_environment(header: SnapshotHeader, known: CachedEnvironment | None) -> CachedEnvironment | None:
    """Return the environment as it is now, or None if it is gone.

    Reads only what changed since `known`; everything after a restart or a change of epoch.
    """
    if known is not None and known.header.epoch == header.epoch and known.header.revision <= header.revision:
        environment = _read(header, known.fragments, known.removed, known.header.revision)
        if environment is None or environment.header.epoch == header.epoch:
            return environment
    return _read(header, {}, {}, -1)


def _read(
    header: SnapshotHeader, fragments: dict[str, Fragment], removed: Mapping[str, int], low: int
) -> CachedEnvironment | None:
    with connection.cursor() as cursor:
        cursor.execute(_READ.format_map(_TABLES), [header.pk, header.pk, low, header.pk, low])
        rows = cursor.fetchall()
    found = next((row for row in rows if row[0] == 0), None)
    if found is None:
        return None
    served, gone = dict(fragments), dict(removed)
    for kind, _, _, _, name, number, text, prices in sorted(rows, key=itemgetter(5)):
        if kind == 1:
            served.pop(name, None)  # changed workloads move to the end
            served[name] = Fragment(number, text.encode(), prices.encode())
        elif kind == 2:
            gone[name] = max(number, gone.get(name, 0))
    for name, number in list(gone.items()):
        # If a workload was removed and served again, or the reverse, the later event counts.
        if name in served and served[name].revision > number:
            del gone[name]
        else:
            served.pop(name, None)
    _, epoch, revision, interval, *_ = found
    header = header._replace(epoch=epoch, revision=revision, poll_interval_ms=_served_interval(interval))
    return CachedEnvironment(header, served, gone)
