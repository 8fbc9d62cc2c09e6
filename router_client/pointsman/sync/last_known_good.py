"""The last known good snapshot, in memory and on disk. Only this module replaces it."""

from __future__ import annotations

from time import monotonic, time

from pointsman.errors import SnapshotRefused
from pointsman.logs import log
from pointsman.sync.signature import PublicKeys
from pointsman.sync.snapshot import Snapshot, SnapshotDocument, parse
from pointsman.sync.store import DiskStore, Received

__all__ = ["LastKnownGood"]

# Beyond this many deltas on disk, or when they exceed the full snapshot's size, a full snapshot is requested.
_MAX_DELTAS = 64


class LastKnownGood:
    """Holds the `current` snapshot. Only the poller's thread writes it; a decision reads it once and keeps that object.

    The applied and the stored snapshot may differ. A rollback must reach a router with a full disk at
    once, so a snapshot is applied before it is stored. But `etag`, which polls send to the control plane,
    stays that of the last stored snapshot: it shows the control plane what a restart would begin with.

    environment  refuse snapshots of other environments; None follows the environment of the key, also if the
                 snapshot on disk is of another one
    keys         accept only snapshots signed with one of them; None trusts the connection
    workloads    those that polls name; empty for all that the key may read
    """

    def __init__(
        self,
        *,
        environment: str | None = None,
        keys: PublicKeys | None = None,
        store: DiskStore | None = None,
        workloads: tuple[str, ...] = (),
    ) -> None:
        self.current: Snapshot | None = None
        self.environment = environment
        self.workloads = workloads
        self.confirmed_at: float | None = None
        self._confirmed_ago, self._counted_from = 0.0, monotonic()
        self.store_problem: str | None = None
        self.store_errors = 0
        self._keys = keys
        self._store = store
        self._chain: list[Received] = []
        self._stored: Snapshot | None = None
        self._only_from_disk = False

    @property
    def staleness_s(self) -> float | None:
        """Return the seconds since the snapshot was last confirmed; None if there is none.

        It is the larger of what two clocks say: the wall clock may be set back, and the other one stands still while
        the machine sleeps.
        """
        if self.current is None or self.confirmed_at is None:
            return None
        running = self._confirmed_ago + monotonic() - self._counted_from
        return max(time() - self.confirmed_at, running)

    @property
    def etag(self) -> str | None:
        """The ETag for polls: that of the last stored snapshot, or of the applied one if there is no store."""
        stored = self.current if self._store is None else self._stored
        return stored.etag if stored is not None else None

    @property
    def unstored(self) -> bool:
        """Whether the applied snapshot could not be stored yet."""
        return self._store is not None and self._stored is not self.current

    @property
    def since(self) -> int | None:
        """The revision from which to request a delta; None to request a full snapshot."""
        if self.current is None or self.current.etag is None:
            return None
        if self._store is None:
            return self.current.revision
        deltas = self._chain[1:]
        grown = sum(len(delta.body) for delta in deltas)
        short = self._chain and len(deltas) < _MAX_DELTAS and grown <= len(self._chain[0].body)
        return self.current.revision if short else None

    def receive(self, received: Received) -> Snapshot:
        """Verify, parse, apply and store, in this order. After SnapshotRefused, `current` and its ETag are unchanged.

        A failure to store is counted; `store` tries again.
        """
        before = self.current
        snapshot, document = self._next(received, before, self.workloads)
        self._confirmed(time())
        if before is not None and _says_nothing(document, before):
            return before  # If it were kept, the chain would grow with every failure to store.
        self._chain = [received] if document.full or not self._chain else [*self._chain, received]
        self.current = snapshot
        self.store()
        return snapshot

    def confirm(self) -> None:
        """Note that the control plane has nothing newer than `etag`."""
        if self.unstored:
            return  # The poll was about an older snapshot, so this does not confirm the applied one.
        self._confirmed(time())
        if self.store_problem is not None:
            self.store()
        elif self._store is not None:
            self._store.touch()

    def store(self) -> None:
        """Write the applied snapshot to disk."""
        if self._store is None:
            return
        try:
            self._store.save(self._chain)
        except OSError as error:
            if self.store_problem is None:
                log.warning("the snapshot could not be stored and is kept in memory: %s", error)
            self.store_problem = str(error)
            self.store_errors += 1
        else:
            self.store_problem = None
            self._stored = self.current

    def load(self) -> Snapshot | None:
        """Load from disk. A body that no longer verifies is dropped, with all bodies after it."""
        if self._store is None:
            return None
        loaded = self._store.load()
        self.store_problem = self._store.problem
        chain, snapshot = [], None
        for received in loaded:
            try:
                snapshot, _ = self._next(received, snapshot)
            except Exception as error:  # The process must start, whatever is in the file.
                self.store_problem = f"{self._store.path}: {error}"
                log.warning("the stored snapshot is not used: %s", self.store_problem)
                break
            chain.append(received)
        self._chain, self.current, self._stored = chain, snapshot, snapshot
        self.confirmed_at = None
        if snapshot is not None and (confirmed_at := self._store.confirmed_at) is not None:
            self._confirmed(confirmed_at)
        self._only_from_disk = snapshot is not None
        return snapshot

    def _confirmed(self, at: float) -> None:
        self.confirmed_at, self._only_from_disk = at, False
        self._confirmed_ago, self._counted_from = max(0.0, time() - at), monotonic()

    def _next(
        self, received: Received, current: Snapshot | None, asked: tuple[str, ...] | None = None
    ) -> tuple[Snapshot, SnapshotDocument]:
        if self._keys is not None:
            self._keys.verify(received.body, received.signature)
        document = parse(received.body)
        if self.environment is not None and document.environment != self.environment:
            raise SnapshotRefused(
                "environment_mismatch",
                f"the snapshot is of {document.environment!r}, this router follows {self.environment!r}",
            )
        if asked is not None:  # on disk, it may be the selection of an earlier configuration
            _check_selection(document, asked)
        if self._only_from_disk and document.full and self._is_elsewhere(document, current):
            current = None
        return Snapshot.of(document, current, received.etag, received.validator), document

    def _is_elsewhere(self, document: SnapshotDocument, current: Snapshot | None) -> bool:
        """Return whether the file was written in another environment, for which this process has no key."""
        if self.environment is not None or current is None or document.environment == current.environment:
            return False
        log.warning(
            "the stored snapshot was of %r; the key is of %r, which is followed from now on",
            current.environment,
            document.environment,
        )
        return True


def _check_selection(document: SnapshotDocument, asked: tuple[str, ...]) -> None:
    """The signature shows who made the body, and this that it was made for the request that was sent."""
    if document.selection is not None and set(document.selection) != set(asked):
        wanted = ", ".join(sorted(set(asked))) or "all workloads"
        raise SnapshotRefused(
            "selection_mismatch",
            f"the selection is {', '.join(document.selection)}, but this router asks for {wanted}: "
            "the query was changed on the way",
        )


def _says_nothing(document: SnapshotDocument, current: Snapshot) -> bool:
    """Return whether it is an empty delta to the revision that is already applied."""
    same = (document.epoch, document.revision) == (current.epoch, current.revision)
    return same and not (document.full or document.workloads or document.removed)
