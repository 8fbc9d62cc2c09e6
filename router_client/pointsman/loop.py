"""The poller's event loop, made for a guest's thread: it can be forked beside, and ends when it is told to."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from contextlib import suppress
from typing import Any

__all__ = ["Loop"]


class Loop(asyncio.SelectorEventLoop):
    """Lets go of `busy` whenever it waits, and resolves names in threads that nobody waits for.

    The executor that does it otherwise is joined when the loop closes and when the process ends: a resolver that
    hangs, as in many an outage, would hold up both. And once the interpreter goes down it takes no work.
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
    """Holds `busy` but while it waits: whoever gets the lock knows the thread in here, and nowhere else."""

    def __init__(self, busy: threading.Lock) -> None:
        super().__init__()
        self._busy = busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._busy.release()
        try:
            return super().select(timeout)
        finally:
            self._busy.acquire()
