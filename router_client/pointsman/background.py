"""The thread that talks to the control plane: it polls snapshots, sends outcomes and feedback, and acknowledges.

It runs its own event loop, so that outcomes can be sent while a long poll waits for up to 25 seconds,
and so that stopping cancels the poll instead of waiting for it. No error ends the thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from pointsman.logs import log
from pointsman.reporting.feedback import FeedbackQueue
from pointsman.reporting.outcomes import OutcomeBuffer
from pointsman.reporting.samples.inputs import InputSamples
from pointsman.reporting.sender import Sender
from pointsman.sync.acks import Acks
from pointsman.sync.connection import Connection
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.loop import Loop, until
from pointsman.sync.poller import Poller
from pointsman.sync.transport import Transport

__all__ = ["BackgroundThread", "Pace"]

# A fork waits at most this long, for example if the disk hangs.
_FORK_WAITS_S = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """Intervals and time limits, in seconds.

    first_poll_within  the first poll comes after rand(0, this)
    flush_every        how often outcomes are sent
    stop_within        time limit of the last flush, and thus of `close()`
    """

    first_poll_within: float = 5.0
    flush_every: float = 5.0
    stop_within: float = 0.8


class BackgroundThread:
    """Started with `start()` and ended with `stop()`; any thread may call `stop` and `poke`."""

    def __init__(
        self,
        connection: Connection,
        router: str,
        good: LastKnownGood,
        outcomes: OutcomeBuffer,
        feedback: FeedbackQueue,
        pace: Pace,
        samples: InputSamples | None = None,
    ) -> None:
        self._connection, self._router, self._pace = connection, router, pace
        self._acks = Acks(router, good, alone=connection.snapshots_url is not None)
        self.poller = Poller(connection, good, self._acks, pace.first_poll_within)
        self.sender = Sender(outcomes, feedback, pace.flush_every, samples)
        # Each backs off after its own failures. When one gets through, the other stops waiting.
        self.poller.got_through, self.sender.got_through = self.sender.retry, self.poller.retry
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()
        self._paused = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the thread. It is a daemon, so a process that does not close its router can still exit."""
        self._thread = threading.Thread(target=self._work, name="pointsman", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Poll now instead of at the end of the current wait."""
        self.poller.poked = True
        self._call(self.poller.wake)

    def stop(self, timeout: float) -> bool:
        """Cancel the poll, flush once and end the thread. Return False if it did not end in time."""
        self._stopping.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        deadline = monotonic() + timeout
        if self._running.wait(timeout):
            self._call(lambda: self._stop.set())
        thread.join(max(0.0, deadline - monotonic()))
        return not thread.is_alive()

    def leave(self) -> None:
        """Like `stop`, without waiting: for a router that is being collected."""
        self._stopping.set()
        if self._running.is_set():
            self._call(lambda: self._stop.set())

    def pause(self) -> None:
        """Before a fork, wait until the thread holds no lock and is not writing.

        Otherwise the lock would be held forever in the child, and a log stream would refuse its lines.
        """
        if self._thread is not threading.current_thread() and self._busy.acquire(timeout=_FORK_WAITS_S):
            self._paused = True

    def resume(self) -> None:
        """Resume in the parent after a fork."""
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
            log.exception(
                "the router's background thread has ended; decisions continue with the last snapshot"
            )
        finally:
            self._running.set()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._running.set()
        if self._stopping.is_set():
            self._stop.set()
        transport = await self._opened()
        if transport is None:
            return
        async with transport:
            each = (self.poller, self.sender, self._acks)
            tasks = [asyncio.create_task(part.rounds(transport)) for part in each]
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.stop_within):
                    await self.sender.last_flush(transport)
                    await self._acks.leave(transport)

    async def _opened(self) -> Transport | None:
        """Open the transport and return it, or None if stopped meanwhile.

        httpx refuses an unusable proxy from the environment variables, or a certificate file that does not exist (yet).
        Such errors are reported like any other outage, and retried.
        """
        while not self._stop.is_set():
            transport = Transport(self._connection, self._router)
            try:
                await transport.open()
            except Exception as error:
                why = f"no connection can be made, {type(error).__name__}: {error}"
                await until(self._stop, self.poller.failed(why))
            else:
                return transport
        return None
