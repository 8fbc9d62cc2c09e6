"""What is sent, retried and kept as one, known by its id: a batch of outcome buckets, or of feedback."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# The protocol allows 1,000 buckets and 1 MiB; the rest is room for the frame around the buckets.
MAX_BUCKETS = 1_000
MAX_BYTES = (1 << 20) - 1_024


class Message(Protocol):
    """A request's body, sent as it is at every try. `count`: how many things are in it."""

    @property
    def id(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def count(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Outcome buckets as a request's body, made once: every retry sends the same bytes under the same id.

    count   the tasks in it
    """

    id: str
    router: str
    body: bytes
    count: int

    def without(self, bad: set[int]) -> list["Batch"]:
        """What is left when the control plane refused some buckets, as a new batch.

        A new id, because the refusal counted nothing of the old one, and the contents differ. It follows from
        the old id: if a crash makes this happen twice, the second time is the same batch again.
        """
        buckets = json.loads(self.body)["buckets"]
        kept = [bucket for position, bucket in enumerate(buckets) if position not in bad]
        if not kept or len(kept) == len(buckets):
            return []
        return [_batch(self.router, kept, _child(self.id, f"without {sorted(bad)}"))]

    def halves(self) -> list["Batch"]:
        """The batch in two, for a control plane that takes less at once; empty when it cannot be cut."""
        buckets = json.loads(self.body)["buckets"]
        if len(buckets) < 2:
            return []
        middle = len(buckets) // 2
        return [
            _batch(self.router, buckets[:middle], _child(self.id, "first half")),
            _batch(self.router, buckets[middle:], _child(self.id, "second half")),
        ]


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """Feedback as a request's body.

    The protocol has no id for it, since it keeps one item per decision and kind: this id names it on disk.

    count   the items in it
    """

    id: str
    body: bytes
    count: int

    def halves(self) -> list["FeedbackBatch"]:
        """The words in two, to find the one that is refused; empty when there is only one."""
        words = [_encode(word) for word in json.loads(self.body)["feedback"]]
        middle = len(words) // 2
        if not middle:
            return []
        parts = {"first half": words[:middle], "second half": words[middle:]}
        return [feedback_batch(part, _child(self.id, name)) for name, part in parts.items()]


def feedback_batch(words: Sequence[bytes], batch_id: str) -> FeedbackBatch:
    """These words, each JSON already."""
    return FeedbackBatch(batch_id, b'{"feedback":[' + b",".join(words) + b"]}", len(words))


def batches(router: str, buckets: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
    """Cut buckets into batches within the protocol's limits. A bucket too large by itself goes alone."""
    part: list[bytes] = []
    size = tasks = 0
    for bucket in buckets:
        encoded = _encode(bucket)
        if part and (len(part) == MAX_BUCKETS or size + len(encoded) > MAX_BYTES):
            yield _framed(router, part, str(uuid.uuid4()), tasks)
            part, size, tasks = [], 0, 0
        part.append(encoded)
        size += len(encoded) + 1
        tasks += bucket["tasks"]
    if part:
        yield _framed(router, part, str(uuid.uuid4()), tasks)


def tasks_of(buckets: Sequence[Mapping[str, Any]]) -> int:
    """How many tasks the buckets hold, to count what is sent or dropped."""
    return sum(bucket["tasks"] for bucket in buckets)


def _batch(router: str, buckets: Sequence[Mapping[str, Any]], batch_id: str) -> Batch:
    return _framed(router, [_encode(bucket) for bucket in buckets], batch_id, tasks_of(buckets))


def _framed(router: str, buckets: Sequence[bytes], batch_id: str, tasks: int) -> Batch:
    frame = _encode({"batch_id": batch_id, "router": router, "buckets": []})
    return Batch(batch_id, router, frame.removesuffix(b"]}") + b",".join(buckets) + b"]}", tasks)


def _child(batch_id: str, name: str) -> str:
    return str(uuid.uuid5(uuid.UUID(batch_id), name))


def _encode(data: Mapping[str, Any]) -> bytes:
    # NaN would be written as a word that is no JSON; a bucket never holds one, and this makes sure.
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
