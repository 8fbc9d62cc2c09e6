"""A TCP proxy that misbehaves on demand: it cuts, stalls, delays, throttles, refuses."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self, TypeVar

T = TypeVar("T")
PATIENCE_S = 30
PIECE = 65_536  # bytes


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.flowing = asyncio.Event()  # cleared: nothing passes any more, in either direction
        self.flowing.set()

    def cut(self) -> None:
        """Reset both sides."""
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """`with Proxy(port) as proxy`: connections to `proxy.port` reach `port`, subject to the current fault."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0  # connections so far
        self._links: set[Link] = set()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0  # 0: unlimited
        self._refusing = False

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(PATIENCE_S)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._server.close)
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- faults -----------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every connection. Return how many there were."""

        def cut() -> int:
            links = list(self._links)
            for link in links:
                link.cut()
            return len(links)

        return self._do(cut)

    def hold(self) -> int:
        """Let nothing pass on the existing connections, without closing them. New ones work. Return how many are
        held."""

        def hold() -> int:
            for link in self._links:
                link.flowing.clear()
            return len(self._links)

        return self._do(hold)

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections immediately."""
        self._do(lambda: setattr(self, "_refusing", refusing))

    def delay(self, seconds: float) -> None:
        """Delay every piece by this time."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def drip(self, bytes_per_s: float) -> None:
        """Limit the throughput; 0: no limit."""
        self._do(lambda: setattr(self, "_bytes_per_s", bytes_per_s))

    def heal(self) -> None:
        """Let new connections work normally; those that are held stay held."""
        self.refuse(False)
        self.delay(0)
        self.drip(0)

    # --- inside ---------------------------------------------------------------------------------------

    def _do(self, work: Callable[[], T]) -> T:
        async def done() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(PATIENCE_S)

    async def _end(self) -> None:
        """Cancel what is still held, so that nothing is pending when the loop ends."""
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _open(self) -> asyncio.Server:
        return await asyncio.start_server(self._link, "127.0.0.1", 0)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            Link(writer, writer).cut()
            return
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            Link(writer, writer).cut()
            return
        link = Link(writer, ahead)
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(link, reader, ahead), self._pump(link, behind, writer))
        except asyncio.CancelledError:
            return  # the proxy is stopping; asyncio's streams complain about a cancelled task
        finally:
            self._links.discard(link)
            link.cut()

    async def _pump(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                await link.flowing.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._write(link, writer, data)
            await link.flowing.wait()
            if writer.can_write_eof():
                writer.write_eof()

    async def _write(self, link: Link, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = len(data) if not self._bytes_per_s else max(1, int(self._bytes_per_s / 10))
        for start in range(0, len(data), size):
            await link.flowing.wait()
            writer.write(data[start : start + size])
            await writer.drain()
            if self._bytes_per_s:
                await asyncio.sleep(0.1)
