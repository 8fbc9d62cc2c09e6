"""The door for any ASGI server, such as one that speaks HTTP/2 or TLS by itself. `manage.py serve` has its own.

It costs a poll two to three times what that one does, and a long poll a task more (benchmarks/servers.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from controlplane.server.lifespan import Life, gateway
from controlplane.web.replies import Header, Reply, Request, joined

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with Life():
            await send({"type": "lifespan.startup.complete"})
            await receive()
            gateway.drain()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await _answer(scope, receive, send)


async def _answer(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    line = _Line(scope, receive, send)
    request = Request(scope["method"], scope["path"], scope["query_string"], _joined(scope["headers"]), line)
    answer = gateway.answer(request)
    try:
        reply = answer if isinstance(answer, Reply) else await answer
        if reply is not None:
            await line.begin(reply.status, reply.headers)
            await line.write(b"" if request.method == "HEAD" else reply.body, more=False)
        else:
            await line.write(b"", more=False)
    except ConnectionResetError:
        return
    finally:
        line.when_gone(None)


class _Line:
    """A request's connection, as ASGI tells of it."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.gone = False
        self._scope, self._receive, self._send = scope, receive, send
        self._complete = False
        self._watching: asyncio.Task[None] | None = None

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._watching = None
        if callback is not None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(callback))

    async def _watch(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        callback()

    async def piece(self) -> bytes:
        while not self._complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ConnectionResetError
            self._complete = not message.get("more_body")
            if piece := message.get("body"):
                return bytes(piece)
        return b""

    async def begin(self, status: int, headers: list[Header]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    def address(self) -> tuple[str, tuple[str, int], str]:
        client = self._scope.get("client") or ("", 0)
        server = self._scope.get("server") or ("localhost", 80)
        return client[0], (server[0], server[1] or 0), self._scope.get("scheme", "http")


def _joined(headers: list[Header]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = joined(name, found[name], value) if name in found else value
    return found
