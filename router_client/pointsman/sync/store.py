"""The last known good snapshot on disk, from which a router starts while the control plane is down.

It is one file, replaced as a whole, so a reader sees either the old one or the new one. It contains the bodies exactly
as received (a full snapshot, then the deltas applied since), each with its ETag and signature. When they are loaded,
they are verified like bodies from the network, because the disk is trusted no more than the network.

    pointsman.store.v1 <SHA-256 of the rest, hex>\\n
    [{"etag": …, "signature": …, "validator": …, "length": 1234}, …]\\n
    <bodies, one after the other>

A truncated or damaged file fails its checksum and counts as absent. Several processes may share a path: the
last write wins, and every process writes only good snapshots.
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
    """A snapshot body as received: the exact bytes and their headers.

    validator   the value for If-None-Match at the source, if it differs from `etag`
    """

    body: bytes
    etag: str | None = None
    signature: str | None = None
    validator: str | None = None


class DiskStore:
    """Stores the bodies of the applied snapshot at `path`.

    `save` raises OSError if the disk is full or read-only; the poller counts this, and routing continues
    from memory. `load` never raises: `problem` says why nothing was loaded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problem: str | None = None

    def save(self, chain: Sequence[Received]) -> None:
        """Replace the file with a full snapshot and its deltas, in the order in which they were applied."""
        index = [
            {"etag": r.etag, "signature": r.signature, "validator": r.validator, "length": len(r.body)}
            for r in chain
        ]
        rest = json.dumps(index).encode() + b"\n" + b"".join(r.body for r in chain)
        checksum = hashlib.sha256(rest).hexdigest().encode()
        write_whole(self.path, MAGIC + checksum + b"\n" + rest)

    def touch(self) -> None:
        """Note that the control plane has confirmed the stored snapshot, so that a restart knows how stale it is."""
        with suppress(OSError):
            os.utime(self.path)

    @property
    def confirmed_at(self) -> float | None:
        """Return when the stored snapshot was last confirmed (Unix seconds), or None if there is none."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return None

    def load(self) -> list[Received]:
        """Return the saved chain; empty if there is none or it is damaged."""
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
        raise ValueError("the checksum does not match: the file is incomplete or was altered")
    index, _, bodies = rest.partition(b"\n")
    chain, start = [], 0
    for entry in json.loads(index):
        end = start + entry["length"]
        named = (entry["etag"], entry["signature"], entry.get("validator"))
        if not all(text is None or fits_header(text) for text in named):
            raise ValueError("its index contains an invalid header value")
        chain.append(Received(bodies[start:end], *named))
        start = end
    return chain
