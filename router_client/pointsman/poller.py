"""The one thread that talks to the control plane: polls snapshots, sends outcomes, feedback and acks.

It runs an event loop of its own, so that a poll may hang for its 25 seconds while outcomes go out beside it,
and so that stopping cancels the poll instead of waiting for it. Nothing a decision needs ever waits for this
thread, and no error ends it: each round that fails is counted, told in `status()`, and followed by a longer
wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from pointsman.acks import Acks
from pointsman.backoff import Backoff
from pointsman.connection import Connection
from pointsman.errors import SnapshotRefused
from pointsman.feedback import FeedbackQueue
from pointsman.lastgood import LastGood
from pointsman.loop import Loop
from pointsman.outcomes import OutcomeBuffer
from pointsman.snapshot import Snapshot
from pointsman.store import Received
from pointsman.transport import Answer, Transport, Unreachable

__all__ = ["Pace", "Poller"]

log = logging.getLogger("pointsman")
T = TypeVar("T")

# While nothing gets through, minutes stay open this long: an outage does not cut them into small pieces.
_SEAL_IN_OUTAGE_S = 60.0
_ADOPT_EVERY_S = 60.0
# Two snapshots in a row are not asked for faster than this.
_BREATH_S = 0.05
# A fork is not held up longer, say by a disk that hangs.
_FORK_WAITS_S = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """How often. Seconds.

    first_poll_within  the first poll comes after rand(0, this)
    flush_every        outcomes are sent this often
    stop_within        the last flush, and with it `close()`, takes at most this long
    """

    first_poll_within: float = 5.0
    flush_every: float = 5.0
    stop_within: float = 0.8


class Poller:
    """Start with `start()`, end with `stop()`. One thread; `stop` and `poke` may be called from any other."""

    def __init__(
        self,
        connection: Connection,
        router: str,
        good: LastGood,
        outcomes: OutcomeBuffer,
        feedback: FeedbackQueue,
        pace: Pace,
    ) -> None:
        self._connection, self._router, self._pace = connection, router, pace
        self._good, self._outcomes, self._feedback = good, outcomes, feedback
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()
        self._paused = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._stopping = threading.Event()
        self._poked = False
        self.applied = threading.Event()
        self.polls = self.poll_failures = self.snapshots_applied = self.snapshots_refused = 0
        self.last_error: str | None = None
        self._backoff = Backoff()
        self._sending = Backoff()
        self._acks = Acks(router, good, alone=connection.snapshots_url is not None)
        self._want_full = False
        self._repeated = 0
        self._sealed_at = self._adopted_at = float("-inf")

    @property
    def failures_in_a_row(self) -> int:
        return self._backoff.failures

    def start(self) -> None:
        """Start the thread. It is a daemon: a process that forgets to close its router still ends."""
        self._thread = threading.Thread(target=self._work, name="pointsman-poller", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Poll now instead of at the end of the present wait."""
        self._poked = True
        self._call(lambda: self._wake.set())

    def stop(self, timeout: float) -> bool:
        """Cancel the poll, flush once, end the thread. False when it did not end in time."""
        self._stopping.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        until = monotonic() + timeout
        if self._running.wait(timeout):
            self._call(lambda: self._stop.set())
        thread.join(max(0.0, until - monotonic()))
        return not thread.is_alive()

    def pause(self) -> None:
        """Before a fork: wait for a moment in which the thread holds no lock and writes nothing. The child would
        find the lock held for ever; of a log's stream, it would be refused every line.
        """
        if self._thread is not threading.current_thread() and self._busy.acquire(timeout=_FORK_WAITS_S):
            self._paused = True

    def resume(self) -> None:
        """After a fork, in the parent."""
        paused, self._paused = self._paused, False
        if paused:
            self._busy.release()

    def _call(self, what: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # closed in the meantime
                loop.call_soon_threadsafe(what)

    def _work(self) -> None:
        try:
            with self._busy, asyncio.Runner(loop_factory=lambda: Loop(self._busy)) as runner:
                runner.run(self._main())
        except Exception:
            log.exception("the pointsman poller has ended; decisions go on with what there is")
        finally:
            self._running.set()

    async def _main(self) -> None:
        self._stop, self._wake = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._running.set()
        if self._stopping.is_set():
            self._stop.set()
        transport = await self._opened()
        if transport is None:
            return
        async with transport:
            rounds = (
                self._poll_rounds(transport),
                self._flush_rounds(transport),
                self._ack_rounds(transport),
            )
            tasks = [asyncio.create_task(each) for each in rounds]
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.stop_within):
                    self._seal()
                    await self._send(transport)

    async def _opened(self) -> Transport | None:
        """A transport that can be opened. None: stopped meanwhile.

        httpx refuses a proxy of the environment that it cannot use, or a certificate file that is not there (yet):
        told like any other outage, and tried again.
        """
        while not self._stop.is_set():
            transport = Transport(self._connection, self._router)
            try:
                await transport.open()
            except Exception as error:
                wait = self._poll_failed(f"no connection can be made, {type(error).__name__}: {error}")
                await _until(self._stop, wait)
            else:
                return transport
        return None

    # Snapshots

    async def _poll_rounds(self, transport: Transport) -> None:
        if not self._poked:
            await self._rest(self._backoff.first(self._pace.first_poll_within))
        self._acks.due.set()  # for what came from disk
        while True:
            await self._rest(await self._round(lambda: self._poll(transport), self._poll_failed))

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        await _until(self._wake, seconds)

    async def _round(self, work: Callable[[], Awaitable[T]], failed: Callable[[str], T]) -> T:
        try:
            return await work()
        except Exception as error:  # An error nobody thought of must not end the thread.
            log.exception("pointsman: %s", error)
            return failed(f"{type(error).__name__}: {error}")

    async def _poll(self, transport: Transport) -> float:
        """One poll; the seconds to wait before the next."""
        self.polls += 1
        if self._good.unstored:
            self._good.store()
        started, since = monotonic(), None if self._want_full else self._good.since
        wait_s = self._wait_s
        try:
            answer = await transport.snapshot(self._good.etag, since, wait_s)
        except Unreachable as error:
            return self._poll_failed(str(error))
        except SnapshotRefused as error:
            return self._refused(error, since)
        current = self._good.current
        if answer.status == 304 and current is not None:
            self._good.confirm()
            self._succeeded()
            held = wait_s > 0 and monotonic() - started >= 1
            return 0.0 if held else self._interval(current)
        if answer.status == 200:
            return self._receive(answer, current, since)
        return self._poll_failed(answer.describe(), answer.retry_after_s)

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
        self.applied.set()
        self._acks.due.set()
        # The same revision once more is what a full snapshot after many deltas looks like. Again and again it
        # means that something between us drops the ETag: no reason to spin.
        self._repeated = 0 if moved else self._repeated + 1
        return _BREATH_S if self._wait_s and self._repeated < 2 else self._interval(snapshot)

    @property
    def _wait_s(self) -> int:
        """How long the next poll may hang; 0 for plain polling."""
        if self._connection.snapshots_url is not None:
            return 0  # files do not wait
        # Asked with the ETag of an older snapshot, a long poll would be answered at once, again and again.
        return 0 if self._good.unstored else self._connection.wait_s

    def _interval(self, snapshot: Snapshot) -> float:
        return self._backoff.spread(max(snapshot.poll_interval_ms, 100) / 1000)

    def _succeeded(self) -> None:
        if self._backoff.failures:
            log.info("the control plane answers again")
        self._backoff.success()
        self.last_error = None

    def _refused(self, error: SnapshotRefused, since: int | None) -> float:
        self._want_full = since is not None
        wait = self._poll_failed(f"snapshot refused, {error.code}: {error}")
        self.snapshots_refused += 1
        return wait

    def _poll_failed(self, why: str, retry_after_s: float | None = None) -> float:
        # Who sees it counted, in another thread, finds the reason.
        before, self.last_error = self.last_error, why
        self.poll_failures += 1
        if why != before:
            log.warning("poll failed, going on with the last known good: %s", why)
        return self._backoff.failure(retry_after_s)

    # Outcomes and feedback

    async def _flush_rounds(self, transport: Transport) -> None:
        while True:
            await asyncio.sleep(self._sending.spread(self._pace.flush_every))
            wait = await self._round(lambda: self._flush(transport), lambda _: self._sending.failure())
            await asyncio.sleep(wait)

    async def _flush(self, transport: Transport) -> float:
        now = monotonic()
        if not self._sending.failures or now - self._sealed_at >= _SEAL_IN_OUTAGE_S:
            self._seal()
            self._sealed_at = now
        if now - self._adopted_at >= _ADOPT_EVERY_S:
            self._outcomes.adopt()
            self._feedback.adopt()
            self._adopted_at = now
        return await self._send(transport)

    def _seal(self) -> None:
        self._outcomes.seal()
        self._feedback.seal()

    async def _send(self, transport: Transport) -> float:
        """Send what waits; the seconds to wait when something did not get through, else 0."""
        try:
            while batch := self._outcomes.oldest():
                answer = await transport.post("outcomes", batch.body, batch.router)
                if 200 <= answer.status < 300:
                    self._outcomes.accept(batch)
                elif answer.status == 413:
                    self._outcomes.split(batch)
                elif answer.status in (400, 422):
                    log.warning("outcome batch %s refused: %s", batch.id, answer.describe())
                    self._outcomes.refuse(batch, answer.bad_buckets)
                else:
                    return self._sending.failure(answer.retry_after_s)
            return await self._send_feedback(transport)
        except Unreachable:
            return self._sending.failure()

    async def _send_feedback(self, transport: Transport) -> float:
        while words := self._feedback.oldest():
            answer = await transport.post("feedback", words.body)
            if 200 <= answer.status < 300:
                self._feedback.accept(words)
            elif answer.status in (400, 413, 422):
                self._feedback.refuse(words)
            else:
                return self._sending.failure(answer.retry_after_s)
        self._sending.success()
        return 0.0

    # Acks

    async def _ack_rounds(self, transport: Transport) -> None:
        wait: float | None = None
        while True:
            await _until(self._acks.due, wait)
            wait = await self._round(lambda: self._acks.tell(transport), lambda _: self._acks.failed())


async def _until(event: asyncio.Event, seconds: float | None) -> None:
    """Until the event, or at most so long; None: however long.

    `asyncio.wait_for` would lose a cancellation that comes together with the event, and `stop` would wait.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
