"""What each environment serves, held in memory: immutable generations, swapped whole.

A generation is the environment at one revision. It is read from the database in a single statement, which
sees one revision even while the next is being committed, and it keeps each workload's ready-made fragment, so
that a new generation costs what changed and shares the rest with the one before.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile
from operator import itemgetter
from typing import Any, NamedTuple

from django.db import connection

from controlplane.web.replies import Header, Reply
from policies_app.models import Assignment, Environment, Revision, Workload

Selection = frozenset[str] | None  # names of workloads; None: all


class Entry(NamedTuple):
    """A workload's ready-made JSON, and the environment's revision that made it."""

    revision: int
    fragment: bytes


class Look(NamedTuple):
    """One environment as the watcher's query sees it; two equal ones mean that nothing has changed."""

    pk: int
    name: str
    epoch: str
    revision: int
    poll_interval_ms: int


class Question(NamedTuple):
    """Which bytes: of what selection, since which revision (None: all of it)."""

    selection: Selection
    since: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A body before compression, with the headers that 200 and 304 share, and the answers made of them."""

    body: bytes
    etag: bytes
    headers: list[Header]
    unchanged: Reply
    by_encoding: dict[str, Reply] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Generation:
    """One environment at one revision. Its content never changes; the rest is made when first asked for.

    `answers` are the bytes, `unchanged` the 304 of each tag that stands for this revision, `flights` what is
    being built just now, `waiters` the long polls that it holds: they are woken when the next one takes its
    place.
    """

    look: Look
    entries: dict[str, Entry]  # in the order of their revisions, so that a delta reads only its own end of it
    removed: Mapping[str, int]  # name → the revision that removed it
    answers: dict[Question, Answer] = field(default_factory=dict)
    unchanged: dict[bytes, Reply] = field(default_factory=dict)
    flights: dict[Any, "asyncio.Task[Any]"] = field(default_factory=dict)
    waiters: set["asyncio.Future[None]"] = field(default_factory=set)
    serial: int = field(default_factory=count().__next__)  # of this process's generations

    def selected(self, question: Question) -> list[tuple[str, bytes]]:
        """The (name, fragment) pairs to send, by name, so that every process builds the same bytes."""
        return [(name, self.entries[name].fragment) for name in sorted(self._names(question))]

    def size(self, question: Question) -> int:
        """Bytes of those fragments."""
        return sum(len(self.entries[name].fragment) for name in self._names(question))

    def _names(self, question: Question) -> Iterable[str]:
        entries, (selection, since) = self.entries, question
        if since is None:
            return entries.keys() if selection is None else entries.keys() & selection
        newer = takewhile(lambda name: entries[name].revision > since, reversed(entries))
        return [name for name in newer if selection is None or name in selection]

    def removed_since(self, question: Question) -> list[str]:
        selection, since = question
        if since is None:
            return []
        gone = (name for name, revision in self.removed.items() if revision > since)
        return sorted(name for name in gone if selection is None or name in selection)


def looks() -> dict[str, Look]:
    """Every environment as of now, in one query."""
    rows = Environment.objects.values_list("pk", "name", "epoch", "revision", "poll_interval_ms")
    return {row[1]: Look(*row) for row in rows}


# One statement, so one moment: with two, the revision of the first could miss a change that the second sees.
# The names in it are those of our own tables; values are bound.
_READ = """
SELECT 0, e.epoch, e.revision, e.poll_interval_ms, '', 0, '' FROM {environment} e WHERE e.id = %s
UNION ALL
SELECT 1, '', 0, 0, w.name, a.revision, a.fragment FROM {assignment} a
  JOIN {workload} w ON w.id = a.workload_id WHERE a.environment_id = %s AND a.revision > %s
UNION ALL
SELECT 2, '', 0, 0, w.name, r.number, '' FROM {revision} r JOIN {workload} w ON w.id = r.workload_id
 WHERE r.environment_id = %s AND r.removed AND r.number > %s
"""
_TABLES = {
    "environment": Environment._meta.db_table,
    "assignment": Assignment._meta.db_table,
    "workload": Workload._meta.db_table,
    "revision": Revision._meta.db_table,
}


def read(look: Look, known: Generation | None) -> Generation | None:
    """The environment's next generation, or None when the environment is gone.

    Only what changed since `known` is read; all of it after a restart, and when the epoch is another.
    """
    if known is not None and known.look.epoch == look.epoch and known.look.revision <= look.revision:
        generation = _read(look, known.entries, known.removed, known.look.revision)
        if generation is None or generation.look.epoch == look.epoch:
            return generation
    return _read(look, {}, {}, -1)


def _read(look: Look, entries: dict[str, Entry], removed: Mapping[str, int], low: int) -> Generation | None:
    with connection.cursor() as cursor:
        cursor.execute(_READ.format_map(_TABLES), [look.pk, look.pk, low, look.pk, low])
        rows = cursor.fetchall()
    header = next((row for row in rows if row[0] == 0), None)
    if header is None:
        return None
    served, gone = dict(entries), dict(removed)
    for kind, _, _, _, name, number, fragment in sorted(rows, key=itemgetter(5)):
        if kind == 1:
            served.pop(name, None)  # what changed goes to the end
            served[name] = Entry(number, fragment.encode())
        elif kind == 2:
            gone[name] = max(number, gone.get(name, 0))
    for name, number in list(gone.items()):
        # Removed and served again, or served and then removed: whichever came last.
        if name in served and served[name].revision > number:
            del gone[name]
        else:
            served.pop(name, None)
    _, epoch, revision, interval, *_ = header
    return Generation(look._replace(epoch=epoch, revision=revision, poll_interval_ms=interval), served, gone)
