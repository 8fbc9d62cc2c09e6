"""The event loop of the router's background thread, and helpers for waiting in it.

The process may fork while the loop runs, and the loop ends immediately on request.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from pointsman.logs import log

__all__ = ["Loop", "guarded", "until"]

T = TypeVar("T")


async def until(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event for at most `seconds`; None means without limit.

    `asyncio.wait_for` would lose a cancellation that arrives together with the event, and `stop` would block.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def guarded(work: Callable[[], Awaitable[T]], failed: Callable[[str], T]) -> T:
    """Return the result of `work`, or, after an unexpected error, that of `failed` for its description.

    No error may end the thread.
    """
    try:
        return await work()
    except Exception as error:
        log.exception("pointsman: %s", error)
        return failed(f"{type(error).__name__}: {error}")


class Loop(asyncio.SelectorEventLoop):
    """An event loop that releases `busy` whenever it waits, and resolves names in threads that are never joined.

    asyncio's own executor is joined when the loop closes and when the process exits: a hanging resolver, as
    in many outages, would block both. It also accepts no work once the interpreter shuts down.
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
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self.call_soon_threadsafe(tell, answer, error)

        try:
            threading.Thread(target=resolve, name="pointsman-resolver", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down and starts no more threads
            return socket.getaddrinfo(*args, **options)
        return await found


class _Selector(selectors.DefaultSelector):
    """A selector that holds `busy` except while it waits, so a thread that gets the lock knows that the loop waits."""

    def __init__(self, busy: threading.Lock) -> None:
        super().__init__()
        self._busy = busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._busy.release()
        try:
            return super().select(timeout)
        finally:
            self._busy.acquire()
