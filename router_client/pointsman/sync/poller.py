"""Poll for snapshots: what to request, how to handle the response, and how long to wait until the next poll.

Decisions never wait for a poll. A failed poll is counted, shown in `status()`, and followed by a longer wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic

from pointsman.errors import SnapshotRefused
from pointsman.logs import log
from pointsman.sync.acks import Acks
from pointsman.sync.backoff import LONGEST_TOLD_S, Backoff
from pointsman.sync.connection import Connection
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.long_poll import CUT_STATUSES, LongPollWait
from pointsman.sync.loop import guarded, until
from pointsman.sync.setup import snapshot_address, wrong_setup
from pointsman.sync.snapshot import Snapshot
from pointsman.sync.store import Received
from pointsman.sync.transport import Answer, Transport, Unreachable

__all__ = ["Poller"]

# The minimum time between two snapshots in a row.
_BREATH_S = 0.05


class Poller:
    """Keeps `good` up to date. `rounds` runs in the background thread's loop until it is cancelled.

    first_within   the first poll comes after rand(0, this many seconds)
    settled        set when a snapshot came from the network, or when waiting for one is pointless
    setup_problem  why waiting is pointless: the last response showed a wrong address or key
    poked          if set, the first poll does not wait
    """

    def __init__(self, connection: Connection, good: LastKnownGood, acks: Acks, first_within: float) -> None:
        self._connection, self._good, self._acks = connection, good, acks
        self._first_within = first_within
        self._wake: asyncio.Event | None = None
        self.poked = False
        self.settled = threading.Event()
        self.setup_problem: str | None = None
        self.workloads_missing: tuple[str, ...] = ()
        self.polls = self.poll_failures = self.snapshots_applied = self.snapshots_refused = 0
        self.last_error: str | None = None
        self._backoff = Backoff()
        self._want_full = False
        self._repeated = 0
        self.got_through: Callable[[], None] = lambda: None  # called when a poll succeeds after failures
        self._long_poll = LongPollWait(connection.wait_s)

    @property
    def failures_in_a_row(self) -> int:
        return self._backoff.failures

    def wake(self) -> None:
        """End the current wait. Must be called in the loop."""
        if self._wake is not None:
            self._wake.set()

    def retry(self) -> None:
        """Poll now because another request got through, unless the control plane set the wait. Call it in the loop."""
        if self._backoff.failures and not self._backoff.told:
            self.wake()

    async def rounds(self, transport: Transport) -> None:
        """Poll until cancelled."""
        self._wake = asyncio.Event()
        if not self.poked:
            await until(self._wake, self._backoff.first(self._first_within))
        self._acks.due.set()  # for the snapshot from disk
        while True:
            self._wake.clear()
            await until(self._wake, await guarded(lambda: self._poll(transport), self.failed))

    async def _poll(self, transport: Transport) -> float:
        """Poll once and return the seconds to wait before the next poll."""
        self.polls += 1
        if self._good.unstored:
            self._good.store()
        started, since = monotonic(), None if self._want_full else self._good.since
        after_failure = self._backoff.failures > 0
        # After a failure, use a plain poll: while a long poll is held, the outage would still be reported.
        wait_s = 0 if after_failure else self._wait_s
        try:
            answer = await transport.snapshot(self._good.etag, since, wait_s)
        except Unreachable as error:
            why = (
                f"no answer from {snapshot_address(self._connection)}: {error}" if error.sent else str(error)
            )
            if error.cut:
                return self._cut_or_failed(why, wait_s, started)
            if error.silent:  # perhaps something in between drops idle connections and tells nobody
                self._long_poll.was_cut(wait_s, monotonic() - started)
            return self.failed(why)
        except SnapshotRefused as error:
            return self._refused(error, since)
        current = self._good.current
        if answer.status == 304 and current is not None:
            self._good.confirm()
            self._succeeded()
            held = wait_s > 0 and monotonic() - started >= 1
            if after_failure and self._wait_s:
                return _BREATH_S  # and hold the next poll
            return 0.0 if held else self._interval(current)
        problem = wrong_setup(answer, self._connection)
        if problem is not None:
            # A key function may return a different key at the next poll.
            may_change = answer.status in (401, 403) and callable(self._connection.key)
            return self.failed(problem, answer.retry_after_s, setup=not may_change)
        if answer.status == 200:
            return self._receive(answer, current, since)
        why = f"{answer.describe()} from {snapshot_address(self._connection)}"
        if answer.status in CUT_STATUSES:
            return self._cut_or_failed(why, wait_s, started)
        return self.failed(why, answer.retry_after_s)

    def _cut_or_failed(self, why: str, wait_s: int, started: float) -> float:
        """Repeat a long poll at once if a proxy has cut it off; treat anything else as a failure."""
        if not self._long_poll.was_cut(wait_s, monotonic() - started):
            return self.failed(why)
        if self._long_poll.cuts == 1:
            log.info(
                "a long poll was cut off (%s): a proxy has a shorter time limit; using shorter polls",
                why,
            )
        return 0.0

    def _receive(self, answer: Answer, current: Snapshot | None, since: int | None) -> float:
        try:
            snapshot = self._good.receive(
                Received(answer.body, answer.etag, answer.signature, answer.validator)
            )
        except SnapshotRefused as error:
            return self._refused(error, since)
        moved = current is None or (snapshot.epoch, snapshot.revision) != (current.epoch, current.revision)
        self._succeeded()
        self._want_full = False
        self.snapshots_applied += moved
        self._look_for_workloads(snapshot)
        self.settled.set()
        self._acks.due.set()
        # Receiving the same revision once more is normal for a full snapshot after many deltas. If it is repeated, it
        # means that a proxy drops the ETag, and the router must not poll in a tight loop.
        self._repeated = 0 if moved else self._repeated + 1
        return _BREATH_S if self._wait_s and self._repeated < 2 else self._interval(snapshot)

    @property
    def _wait_s(self) -> int:
        """Return how long the next poll may be held; 0 for plain polling."""
        if self._connection.snapshots_url is not None:
            return 0  # files do not wait
        # With the ETag of an older snapshot, every long poll would be answered at once.
        return 0 if self._good.unstored else self._long_poll.seconds

    def _interval(self, snapshot: Snapshot) -> float:
        return self._backoff.spread(min(max(snapshot.poll_interval_ms, 100), 1000 * LONGEST_TOLD_S) / 1000)

    def _look_for_workloads(self, snapshot: Snapshot) -> None:
        """Log once which of the chosen workloads are not served."""
        missing = tuple(sorted(set(self._connection.workloads) - set(snapshot.workloads)))
        if missing and missing != self.workloads_missing:
            log.error(
                "%s serves no workload %s to this key: serve it there, or correct `workloads`",
                snapshot.environment,
                ", ".join(map(repr, missing)),
            )
        self.workloads_missing = missing

    def _succeeded(self) -> None:
        failed = self._backoff.failures
        self._backoff.success()
        self.last_error = self.setup_problem = None
        if failed:
            log.info("the control plane answers again")
            self.got_through()

    def _refused(self, error: SnapshotRefused, since: int | None) -> float:
        self._want_full = since is not None
        wait = self.failed(f"snapshot refused, {error.code}: {error}")
        self.snapshots_refused += 1
        return wait

    def failed(self, why: str, retry_after_s: float | None = None, *, setup: bool = False) -> float:
        """Count a failed poll and return the seconds to wait before the next.

        setup   whether the router's own configuration is wrong, so that waiting is pointless
        """
        # Set the reason first: another thread that sees the count must also find the reason.
        before, self.last_error = self.last_error, why
        self.setup_problem = why if setup else None
        self.poll_failures += 1
        if setup:
            self.settled.set()
        elif self._good.current is None:
            self.settled.clear()
        if why != before:
            known = self._good.current is not None
            goes_on = (
                "continuing with the last known good" if known else "there is no policy yet, only defaults"
            )
            tell = log.error if setup else log.warning
            tell("poll failed, %s: %s", goes_on, why)
        return self._backoff.failure(retry_after_s)
