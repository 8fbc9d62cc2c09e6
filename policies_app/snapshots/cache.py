"""What each environment serves, held in memory: immutable, and replaced whole when something changes.

A cached environment is one revision. It is read from the database in a single statement, which sees one revision
even while the next is being committed, and it keeps each workload's ready-made fragment, so that the next one costs
what changed and shares the rest with the one before.
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
from policies_app.models import Assignment, Environment, Revision, Workload

Selection = frozenset[str] | None  # names of workloads; None: all


class Fragment(NamedTuple):
    """A workload's ready-made JSON, and the environment's revision that made it."""

    revision: int
    text: bytes
    prices: bytes = b"{}"  # JSON: of the models in its documents


class SnapshotHeader(NamedTuple):
    """One environment as the watcher's query sees it; two equal ones mean that nothing has changed."""

    pk: int
    name: str
    epoch: str
    revision: int
    poll_interval_ms: int
    signers: str = ""  # the keys that sign (`signing.signers_id`): with another, every body is made anew


class SnapshotQuery(NamedTuple):
    """Which bytes: of what selection, since which revision (None: all of it)."""

    selection: Selection
    since: int | None


@dataclass(frozen=True, slots=True)
class SnapshotBody:
    """A body before compression, with the headers that 200 and 304 share, and the answers made of them."""

    plain: bytes
    etag: bytes
    headers: list[Header]
    unchanged: Reply
    by_encoding: dict[str, Reply] = field(default_factory=dict)


class NotModified(NamedTuple):
    """A 304, and what the tags of those who get it say: the epoch and revision that they have applied."""

    epoch: str
    revision: int
    reply: Reply


# If-None-Match as it came, the query as it came, and what the key may see: the same again gets the same 304.
Asked = tuple[bytes, bytes, Selection]


@dataclass(slots=True, eq=False)
class CachedEnvironment:
    """One environment at one revision. Its content never changes; the rest is made when first asked for.

    bodies        the bytes, by what was asked
    unchanged     the 304 of each tag that stands for this revision
    not_modified  the 304 of each poll that was answered so
    in_flight     what is being built just now
    waiters       the long polls that it holds: they are woken when the next one takes its place
    """

    header: SnapshotHeader
    fragments: dict[
        str, Fragment
    ]  # in the order of their revisions, so that a delta reads only its own end of it
    removed: Mapping[str, int]  # name → the revision that removed it
    bodies: dict[SnapshotQuery, SnapshotBody] = field(default_factory=dict)
    unchanged: dict[bytes, Reply] = field(default_factory=dict)
    not_modified: dict[Asked, NotModified] = field(default_factory=dict)
    in_flight: dict[Any, "asyncio.Task[Any]"] = field(default_factory=dict)
    waiters: set["asyncio.Future[None]"] = field(default_factory=set)

    def selected(self, query: SnapshotQuery) -> list[tuple[str, bytes]]:
        """The (name, fragment) pairs to send, by name, so that every process builds the same bytes."""
        return [(name, self.fragments[name].text) for name in sorted(self._names(query))]

    def prices(self, query: SnapshotQuery) -> dict[str, Any]:
        """What the models of those fragments cost, by the catalogue's names, in order."""
        merged: dict[str, Any] = {}
        for text in sorted({self.fragments[name].prices for name in self._names(query)}):
            merged |= msgspec.json.decode(text)
        return dict(sorted(merged.items()))

    def size(self, query: SnapshotQuery) -> int:
        """Bytes of those fragments."""
        return sum(len(self.fragments[name].text) for name in self._names(query))

    def _names(self, query: SnapshotQuery) -> Iterable[str]:
        fragments, (selection, since) = self.fragments, query
        if since is None:
            return fragments.keys() if selection is None else fragments.keys() & selection
        newer = takewhile(lambda name: fragments[name].revision > since, reversed(fragments))
        return [name for name in newer if selection is None or name in selection]

    def removed_since(self, query: SnapshotQuery) -> list[str]:
        selection, since = query
        if since is None:
            return []
        gone = (name for name, revision in self.removed.items() if revision > since)
        return sorted(name for name in gone if selection is None or name in selection)


SnapshotCache = dict[str, CachedEnvironment]  # by the environment's name


def read_headers() -> dict[str, SnapshotHeader]:
    """Every environment as of now, in one query."""
    rows = Environment.objects.values_list("pk", "name", "epoch", "revision", "poll_interval_ms")
    signers = signing.signers_id()
    return {row[1]: SnapshotHeader(*row, signers) for row in rows}


# One statement, so one moment: with two, the revision of the first could miss a change that the second sees.
# The names in it are those of our own tables; values are bound.
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
    """The environment as it is now, or None when it is gone.

    Only what changed since `known` is read; all of it after a restart, and when the epoch is another.
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
            served.pop(name, None)  # what changed goes to the end
            served[name] = Fragment(number, text.encode(), prices.encode())
        elif kind == 2:
            gone[name] = max(number, gone.get(name, 0))
    for name, number in list(gone.items()):
        # Removed and served again, or served and then removed: whichever came last.
        if name in served and served[name].revision > number:
            del gone[name]
        else:
            served.pop(name, None)
    _, epoch, revision, interval, *_ = found
    header = header._replace(epoch=epoch, revision=revision, poll_interval_ms=interval)
    return CachedEnvironment(header, served, gone)
