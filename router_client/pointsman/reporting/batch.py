"""Batches of outcomes or feedback, which are sent, retried and stored as a unit with one id."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pointsman.reporting.limits import BUCKETS, BYTES

__all__ = [
    "MAX_BUCKETS",
    "MAX_BYTES",
    "Batch",
    "FeedbackBatch",
    "Message",
    "batches",
    "feedback_batch",
    "tasks_of",
]

MAX_BUCKETS = BUCKETS
MAX_BYTES = BYTES - 1_024  # the rest is reserved for the enclosing JSON
_LISTS = ("buckets", "decided", "cells")

# List of a report → its entries.
Entries = Mapping[str, Sequence[Mapping[str, Any]]]


class Message(Protocol):
    """A request's body, sent unchanged at every attempt. `count` is the number of items in it."""

    @property
    def id(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def count(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """A report as a request's body, created once: every retry sends the same bytes with the same id.

    count   the number of tasks in its buckets
    """

    id: str
    router: str
    body: bytes
    count: int

    def without(self, bad: set[tuple[str, int]]) -> list[Batch]:
        """Return a new batch without the entries that the control plane refused, given as (list, index).

        It has a new id, because nothing of the old batch was counted and the contents differ. The id is derived from
        the old one: if a crash causes this to happen twice, the result is the same batch.
        """
        entries = self._entries()
        kept = {
            name: [entry for n, entry in enumerate(part) if (name, n) not in bad]
            for name, part in entries.items()
        }
        if not any(kept.values()) or _size(kept) == _size(entries):
            return []
        return [_batch(self.router, kept, _child(self.id, f"without {sorted(bad)}"))]

    def halves(self) -> list[Batch]:
        """Split the batch in two, for a control plane that accepts less at once; empty if it cannot be split."""
        entries = self._entries()
        if _size(entries) < 2:
            return []
        flat = [(name, entry) for name, part in entries.items() for entry in part]
        middle = len(flat) // 2
        parts = {"first half": flat[:middle], "second half": flat[middle:]}
        return [
            _batch(
                self.router,
                {name: [entry for of, entry in part if of == name] for name in _LISTS},
                _child(self.id, title),
            )
            for title, part in parts.items()
        ]

    @property
    def newest(self) -> float:
        """The newest minute in it, as Unix time; 0 if it has none."""
        minutes = [entry["minute"] for part in self._entries().values() for entry in part]
        return max((datetime.fromisoformat(minute).timestamp() for minute in minutes), default=0.0)

    def _entries(self) -> dict[str, list[Mapping[str, Any]]]:
        report = json.loads(self.body)
        return {name: report.get(name, []) for name in _LISTS}


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """Feedback as a request's body.

    The protocol needs no id for it, because it keeps one item per decision and kind; this id is its name on disk.

    count   the number of items
    """

    id: str
    body: bytes
    count: int

    def halves(self) -> list[FeedbackBatch]:
        """Split the items in two, to find the one that is refused; empty if there is only one."""
        middle = self.count // 2
        first, second = self._parts(set(range(middle)))
        if not first:
            return []
        return [
            feedback_batch(first, _child(self.id, "first half")),
            feedback_batch(second, _child(self.id, "second half")),
        ]

    def divided(self, numbers: set[int]) -> tuple[FeedbackBatch | None, FeedbackBatch | None]:
        """Return the items with these indexes and the others, each None if there are none."""
        parts = self._parts(numbers)
        if not all(parts):
            return (self, None) if parts[0] else (None, self)
        named, others = (_child(self.id, f"{name} {sorted(numbers)}") for name in ("only", "without"))
        return feedback_batch(parts[0], named), feedback_batch(parts[1], others)

    def _parts(self, numbers: set[int]) -> tuple[list[bytes], list[bytes]]:
        items = [_encode(item) for item in json.loads(self.body)["feedback"]]
        named = [item for n, item in enumerate(items) if n in numbers]
        return named, [item for n, item in enumerate(items) if n not in numbers]


def feedback_batch(items: Sequence[bytes], batch_id: str) -> FeedbackBatch:
    """Return a batch of these items, each already encoded as JSON."""
    return FeedbackBatch(batch_id, b'{"feedback":[' + b",".join(items) + b"]}", len(items))


def batches(router: str, entries: Entries) -> Iterator[Batch]:
    """Divide a report into batches within the protocol's limits. An entry that is too large by itself is sent alone."""
    part: dict[str, list[bytes]] = {}
    size = tasks = 0
    for name, entry in ((name, entry) for name, listed in entries.items() for entry in listed):
        encoded = _encode(entry)
        if part and (len(part.get(name, ())) == MAX_BUCKETS or size + len(encoded) > MAX_BYTES):
            yield _framed(router, part, str(uuid.uuid4()), tasks)
            part, size, tasks = {}, 0, 0
        part.setdefault(name, []).append(encoded)
        size += len(encoded) + 1
        tasks += entry["tasks"] if name == "buckets" else 0
    if part:
        yield _framed(router, part, str(uuid.uuid4()), tasks)


def tasks_of(buckets: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of tasks in the buckets, to count what is sent or dropped."""
    return sum(bucket["tasks"] for bucket in buckets)


def _size(entries: Entries) -> int:
    return sum(map(len, entries.values()))


def _batch(router: str, entries: Entries, batch_id: str) -> Batch:
    encoded = {name: [_encode(entry) for entry in part] for name, part in entries.items() if part}
    return _framed(router, encoded, batch_id, tasks_of(entries["buckets"]))


def _framed(router: str, entries: Mapping[str, Sequence[bytes]], batch_id: str, tasks: int) -> Batch:
    frame = _encode({"batch_id": batch_id, "router": router}).removesuffix(b"}")
    # Omitting `decided` would mean that this router does not count decisions.
    lists: dict[str, Sequence[bytes]] = {"buckets": (), "decided": (), **entries}
    body = b"".join(b',"%s":[%s]' % (name.encode(), b",".join(part)) for name, part in lists.items())
    return Batch(batch_id, router, frame + body + b"}", tasks)


def _child(batch_id: str, name: str) -> str:
    return str(uuid.uuid5(uuid.UUID(batch_id), name))


def _encode(data: Mapping[str, Any]) -> bytes:
    # NaN would be encoded as invalid JSON. A report never contains one; this makes sure of it.
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
