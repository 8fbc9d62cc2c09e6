"""The last known good on disk: what a router starts from while the control plane is away.

One file, replaced as a whole: a reader sees the old one or the new one. It holds the bodies exactly as
they came (a full snapshot, then the deltas applied since), each with its ETag and signature, because on
the way back in they are verified as if they came from the network: whoever can write the disk is no more
trusted than whoever can write the wire.

    pointsman.store.v1 <SHA-256 of the rest, hex>\\n
    [{"etag": …, "signature": …, "length": 1234}, …]\\n
    <bodies, one after the other>

A file torn at any byte fails its checksum and counts as absent. Several processes may share a path: the
last to write wins, and what they write are all good snapshots.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pointsman.sync.files import write_whole
from pointsman.sync.headers import fits_header

MAGIC = b"pointsman.store.v1 "


@dataclass(frozen=True, slots=True)
class Received:
    """A snapshot body as it came: the exact bytes and the headers that speak of them.

    validator   what If-None-Match takes where it came from, when that is not `etag`
    """

    body: bytes
    etag: str | None = None
    signature: str | None = None
    validator: str | None = None


class DiskStore:
    """Keeps the bodies that make up the applied snapshot at `path`.

    `save` raises OSError when the disk refuses (full, read-only); the poller counts that and routes on
    from memory. `load` never raises: `problem` says why nothing came.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problem: str | None = None

    def save(self, chain: Sequence[Received]) -> None:
        """Replace the file: a full snapshot first, then its deltas in the order they were applied."""
        index = [
            {"etag": r.etag, "signature": r.signature, "validator": r.validator, "length": len(r.body)}
            for r in chain
        ]
        rest = json.dumps(index).encode() + b"\n" + b"".join(r.body for r in chain)
        checksum = hashlib.sha256(rest).hexdigest().encode()
        write_whole(self.path, MAGIC + checksum + b"\n" + rest)

    def touch(self) -> None:
        """The control plane has confirmed what is stored: a restart then knows how stale it is."""
        with suppress(OSError):
            os.utime(self.path)

    @property
    def confirmed_at(self) -> float | None:
        """When the stored snapshot was last confirmed (Unix seconds); None when there is none."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return None

    def load(self) -> list[Received]:
        """The chain that was saved; empty when there is none or it is damaged."""
        self.problem = None
        try:
            return _read(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.problem = f"{self.path}: {error}"
            return []


def _read(content: bytes) -> list[Received]:
    head, _, rest = content.partition(b"\n")
    if not head.startswith(MAGIC):
        raise ValueError("not a pointsman store, or its beginning is damaged")
    if head[len(MAGIC) :] != hashlib.sha256(rest).hexdigest().encode():
        raise ValueError("the checksum does not match: the file is torn or was altered")
    index, _, bodies = rest.partition(b"\n")
    chain, start = [], 0
    for entry in json.loads(index):
        end = start + entry["length"]
        named = (entry["etag"], entry["signature"], entry.get("validator"))
        if not all(text is None or fits_header(text) for text in named):
            raise ValueError("its index holds what no header can")
        chain.append(Received(bodies[start:end], *named))
        start = end
    return chain
