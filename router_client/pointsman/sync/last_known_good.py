"""The last known good snapshot, in memory and on disk: the one place where it is replaced."""

from __future__ import annotations

import logging
import time

from pointsman.errors import SnapshotRefused
from pointsman.sync.signature import PublicKeys
from pointsman.sync.snapshot import Snapshot, SnapshotDocument, parse
from pointsman.sync.store import DiskStore, Received

__all__ = ["LastKnownGood"]

log = logging.getLogger("pointsman")

# A chain of deltas on disk is cut by asking for a full snapshot: past this many, or past the full one's size.
_MAX_DELTAS = 64


class LastKnownGood:
    """Holds `current`. The poller's thread alone writes; decisions read it once and keep what they read.

    What is applied and what is stored are two things. A rollback has to reach a router with a full disk at
    once, so a snapshot is applied before it is stored; but `etag`, by which the control plane is asked for
    what is newer, stays on the last one that the disk took: whoever reads it sees what a restart starts with.

    environment  refuse snapshots of another one; None follows whatever the key belongs to
    keys         trust only what one of them signed; None trusts the connection
    """

    def __init__(
        self,
        *,
        environment: str | None = None,
        keys: PublicKeys | None = None,
        store: DiskStore | None = None,
    ) -> None:
        self.current: Snapshot | None = None
        self.environment = environment
        self.confirmed_at: float | None = None
        self.store_problem: str | None = None
        self.store_errors = 0
        self._keys = keys
        self._store = store
        self._chain: list[Received] = []
        self._stored: Snapshot | None = None

    @property
    def etag(self) -> str | None:
        """What to ask with: the ETag of the last snapshot that was stored, or applied where none is kept."""
        stored = self.current if self._store is None else self._stored
        return stored.etag if stored is not None else None

    @property
    def unstored(self) -> bool:
        """Whether the disk has not taken what is applied."""
        return self._store is not None and self._stored is not self.current

    @property
    def since(self) -> int | None:
        """The revision to ask a delta from; None to ask for a full snapshot."""
        if self.current is None or self.current.etag is None:
            return None
        if self._store is None:
            return self.current.revision
        deltas = self._chain[1:]
        grown = sum(len(delta.body) for delta in deltas)
        short = self._chain and len(deltas) < _MAX_DELTAS and grown <= len(self._chain[0].body)
        return self.current.revision if short else None

    def receive(self, received: Received) -> Snapshot:
        """Verify, parse, apply, store; in this order. On SnapshotRefused `current` and its ETag stay.

        A disk that refuses is counted; `store` tries again.
        """
        before = self.current
        snapshot, document = self._next(received, before)
        self.confirmed_at = time.time()
        if before is not None and _says_nothing(document, before):
            return before  # Kept, it would make the chain grow with each round that the disk refuses.
        self._chain = [received] if document.full or not self._chain else [*self._chain, received]
        self.current = snapshot
        self.store()
        return snapshot

    def confirm(self) -> None:
        """The control plane said that nothing is newer than `etag`."""
        if self.unstored:
            return  # It was asked about an older one, so this says nothing of what is applied.
        self.confirmed_at = time.time()
        if self.store_problem is not None:
            self.store()
        elif self._store is not None:
            self._store.touch()

    def store(self) -> None:
        """Write what is applied to disk."""
        if self._store is None:
            return
        try:
            self._store.save(self._chain)
        except OSError as error:
            if self.store_problem is None:
                log.warning("the snapshot could not be stored, and is kept in memory: %s", error)
            self.store_problem = str(error)
            self.store_errors += 1
        else:
            self.store_problem = None
            self._stored = self.current

    def load(self) -> Snapshot | None:
        """Start from disk. What does not verify any more is left out, with everything that came after it."""
        if self._store is None:
            return None
        loaded = self._store.load()
        self.store_problem = self._store.problem
        chain, snapshot = [], None
        for received in loaded:
            try:
                snapshot, _ = self._next(received, snapshot)
            except SnapshotRefused as error:
                self.store_problem = f"{self._store.path}: {error}"
                log.warning("the stored snapshot is not used: %s", self.store_problem)
                break
            chain.append(received)
        self._chain, self.current, self._stored = chain, snapshot, snapshot
        self.confirmed_at = self._store.confirmed_at if snapshot is not None else None
        return snapshot

    def _next(self, received: Received, current: Snapshot | None) -> tuple[Snapshot, SnapshotDocument]:
        if self._keys is not None:
            self._keys.verify(received.body, received.signature)
        document = parse(received.body)
        if self.environment is not None and document.environment != self.environment:
            raise SnapshotRefused(
                "environment_mismatch",
                f"the snapshot is of {document.environment!r}, this router follows {self.environment!r}",
            )
        return Snapshot.of(document, current, received.etag, received.validator), document


def _says_nothing(document: SnapshotDocument, current: Snapshot) -> bool:
    """Whether it is an empty delta to the very revision that is applied."""
    same = (document.epoch, document.revision) == (current.epoch, current.revision)
    return same and not (document.full or document.workloads or document.removed)
