"""The event loop of the router's background thread, and how its rounds wait.

The process may fork while the loop runs, and the loop ends as soon as it is told to.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Loop", "guarded", "until"]

log = logging.getLogger("pointsman")
T = TypeVar("T")


async def until(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event, at most `seconds`; None: without limit.

    `asyncio.wait_for` would lose a cancellation that arrives together with the event, and `stop` would wait.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def guarded(work: Callable[[], Awaitable[T]], failed: Callable[[str], T]) -> T:
    """What `work` returns; after an error nobody expected, what `failed` makes of its description.

    No error may end the thread.
    """
    try:
        return await work()
    except Exception as error:
        log.exception("pointsman: %s", error)
        return failed(f"{type(error).__name__}: {error}")


class Loop(asyncio.SelectorEventLoop):
    """Releases `busy` whenever it waits, and resolves names in threads that are never joined.

    asyncio's own executor is joined when the loop closes and when the process ends: a resolver that hangs, as
    in many outages, would hold up both. It also takes no work once the interpreter shuts down.
    """

    def __init__(self, busy: threading.Lock) -> None:
        super().__init__(_Selector(busy))

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        found: asyncio.Future[Any] = self.create_future()

        def tell(answer: Any, error: Exception | None) -> None:
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(answer)

        def resolve() -> None:
            answer, error = None, None
            try:
                answer = socket.getaddrinfo(*args, **options)
            except Exception as failure:
                error = failure
            with suppress(RuntimeError):  # the loop has closed meanwhile
                self.call_soon_threadsafe(tell, answer, error)

        try:
            threading.Thread(target=resolve, name="pointsman-resolver", daemon=True).start()
        except RuntimeError:  # the interpreter goes down and starts no more threads
            return socket.getaddrinfo(*args, **options)
        return await found


class _Selector(selectors.DefaultSelector):
    """Holds `busy` except while it waits: who gets the lock knows that the thread is waiting here."""

    def __init__(self, busy: threading.Lock) -> None:
        super().__init__()
        self._busy = busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._busy.release()
        try:
            return super().select(timeout)
        finally:
            self._busy.acquire()
