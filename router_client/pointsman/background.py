"""The one thread that talks to the control plane: it polls snapshots, sends outcomes and feedback, and acks.

It runs an event loop of its own, so that a poll may hang for its 25 seconds while outcomes go out beside it,
and so that stopping cancels the poll instead of waiting for it. No error ends it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from pointsman.reporting.feedback import FeedbackQueue
from pointsman.reporting.outcomes import OutcomeBuffer
from pointsman.reporting.sender import Sender
from pointsman.sync.acks import Acks
from pointsman.sync.connection import Connection
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.loop import Loop, until
from pointsman.sync.poller import Poller
from pointsman.sync.transport import Transport

__all__ = ["BackgroundThread", "Pace"]

log = logging.getLogger("pointsman")

# A fork is not held up longer than this, say by a disk that hangs.
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


class BackgroundThread:
    """Start with `start()`, end with `stop()`; `stop` and `poke` may be called from any thread."""

    def __init__(
        self,
        connection: Connection,
        router: str,
        good: LastKnownGood,
        outcomes: OutcomeBuffer,
        feedback: FeedbackQueue,
        pace: Pace,
    ) -> None:
        self._connection, self._router, self._pace = connection, router, pace
        self._acks = Acks(router, good, alone=connection.snapshots_url is not None)
        self.poller = Poller(connection, good, self._acks, pace.first_poll_within)
        self.sender = Sender(outcomes, feedback, pace.flush_every)
        # Each waits by itself after its own failures. What one of them finds out, the other need not wait for.
        self.poller.got_through, self.sender.got_through = self.sender.retry, self.poller.retry
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()
        self._paused = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the thread. It is a daemon: a process that forgets to close its router still ends."""
        self._thread = threading.Thread(target=self._work, name="pointsman", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Poll now instead of at the end of the present wait."""
        self.poller.poked = True
        self._call(self.poller.wake)

    def stop(self, timeout: float) -> bool:
        """Cancel the poll, flush once, end the thread. False when it did not end in time."""
        self._stopping.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        deadline = monotonic() + timeout
        if self._running.wait(timeout):
            self._call(lambda: self._stop.set())
        thread.join(max(0.0, deadline - monotonic()))
        return not thread.is_alive()

    def pause(self) -> None:
        """Before a fork: wait for a moment in which the thread holds no lock and writes nothing.

        The child would find the lock held for ever, and a log's stream would refuse it every line.
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
            log.exception("the router's background thread has ended; decisions go on with what there is")
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
        """A transport that can be opened. None: stopped meanwhile.

        httpx refuses a proxy of the environment that it cannot use, or a certificate file that is not there (yet):
        reported like any other outage, and tried again.
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
