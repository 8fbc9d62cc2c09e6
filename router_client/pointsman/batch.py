"""A batch of outcome buckets: what is sent, retried and counted as one, known by its id."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The protocol allows 1,000 buckets and 1 MiB; the rest is room for the frame around the buckets.
MAX_BUCKETS = 1_000
MAX_BYTES = (1 << 20) - 1_024


@dataclass(frozen=True, slots=True)
class Batch:
    """The request's body, made once: every retry sends the same bytes under the same id."""

    id: str
    router: str
    body: bytes
    tasks: int

    def without(self, bad: set[int]) -> list["Batch"]:
        """What is left when the control plane refused some buckets, as a new batch.

        A new id, because the refusal counted nothing of the old one, and the contents differ. It follows from
        the old id: if a crash makes this happen twice, the second time is the same batch again.
        """
        buckets = json.loads(self.body)["buckets"]
        kept = [bucket for position, bucket in enumerate(buckets) if position not in bad]
        if not kept or len(kept) == len(buckets):
            return []
        return [_batch(self.router, kept, self._child(f"without {sorted(bad)}"))]

    def halves(self) -> list["Batch"]:
        """The batch in two, for a control plane that takes less at once; empty when it cannot be cut."""
        buckets = json.loads(self.body)["buckets"]
        if len(buckets) < 2:
            return []
        middle = len(buckets) // 2
        return [
            _batch(self.router, buckets[:middle], self._child("first half")),
            _batch(self.router, buckets[middle:], self._child("second half")),
        ]

    def _child(self, name: str) -> str:
        return str(uuid.uuid5(uuid.UUID(self.id), name))


def batches(router: str, buckets: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
    """Cut buckets into batches within the protocol's limits. A bucket too large by itself goes alone."""
    part: list[Mapping[str, Any]] = []
    size = 0
    for bucket in buckets:
        length = len(_encode(bucket)) + 1
        if part and (len(part) == MAX_BUCKETS or size + length > MAX_BYTES):
            yield _batch(router, part, str(uuid.uuid4()))
            part, size = [], 0
        part.append(bucket)
        size += length
    if part:
        yield _batch(router, part, str(uuid.uuid4()))


def tasks_of(buckets: Sequence[Mapping[str, Any]]) -> int:
    """How many tasks the buckets hold, to count what is sent or dropped."""
    return sum(bucket["tasks"] for bucket in buckets)


def _batch(router: str, buckets: Sequence[Mapping[str, Any]], batch_id: str) -> Batch:
    body = _encode({"batch_id": batch_id, "router": router, "buckets": buckets})
    return Batch(batch_id, router, body, tasks_of(buckets))


def _encode(data: Mapping[str, Any]) -> bytes:
    # NaN would be written as a word that is no JSON; a bucket never holds one, and this makes sure.
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
