"""The ASGI layer between the server and the gateway."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from controlplane.core.errors import MalformedBody
from controlplane.web.replies import Message, Receive, Reply, Request, Send, problem

# An answer that is ready is returned directly: a task for each would cost a third of a poll's time.
Answer = Reply | Coroutine[Any, Any, Reply]

PIECE = 256 * 1024  # bytes; a larger body is sent in pieces, so that a slow reader holds only a few of them
UNREAD_S = 60  # seconds that a client may take to read one piece
UNREAD_BODY_S = 5.0  # seconds for discarding the rest of a body after the answer
_NOTHING: Message = {"type": "http.response.body", "body": b""}


class Application:
    """The ASGI application. `answer` returns a reply or a coroutine for one; `lifespan` is entered before the first
    request."""

    def __init__(
        self,
        answer: Callable[[Request], Answer],
        lifespan: Callable[[], AbstractAsyncContextManager[Any]],
    ) -> None:
        self._answer = answer
        self._lifespan = lifespan

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._respond(Request(scope, receive), send)
        elif scope["type"] == "lifespan":
            await receive()
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, request: Request, send: Send) -> None:
        answer = _objection(request) or self._answer(request)
        try:
            reply = answer if isinstance(answer, Reply) else await answer
        except ConnectionResetError:
            reply = _refused("The body is incomplete, or its framing is not valid HTTP/1.1.")
        unread = request.is_unread
        if unread:
            reply = _closing(reply)
        await send(reply.start)
        if request.method == "HEAD":
            await send(_NOTHING)
        elif reply.file is not None or len(reply.body) > PIECE:
            await _send_pieces(request, reply, send)
        elif unread:
            await send({**reply.content, "more_body": True})
            await _discard_rest(request)
            await send(_NOTHING)
        else:
            await send(reply.content)


def _objection(request: Request) -> Reply | None:
    """Reject what servers accept but RFC 9112 forbids: no host or two (3.2), an encoding that nobody decodes (6.1)."""
    headers = request.headers
    host = headers.get(b"host")
    if (not host or b"," in host) and request.scope["http_version"] == "1.1":
        return _refused("An HTTP/1.1 request must have exactly one Host header.")
    if b"transfer-encoding" in headers and headers[b"transfer-encoding"].lower() != b"chunked":
        return _refused("The only transfer encoding allowed is chunked.")
    return None


def _refused(detail: str) -> Reply:
    """Reject the request and close the connection, because the end of the request is uncertain."""
    return problem(MalformedBody(detail)).with_headers((b"connection", b"close"))


def _closing(reply: Reply) -> Reply:
    """Announce that the connection closes, as it does when a body was not read to its end. Otherwise the client sends
    its next request on it, which is reset."""
    if any(name == b"connection" for name, _ in reply.headers):
        return reply
    return reply.with_headers((b"connection", b"close"))


async def _discard_rest(request: Request) -> None:
    """Discard the rest of a body after the answer. A connection that is closed with unread bytes is reset, and the
    reset may overtake the answer: the client would never learn that its body is too large."""
    with suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(UNREAD_BODY_S):
            while (await request.piece())[1]:
                pass


async def _send_pieces(request: Request, reply: Reply, send: Send) -> None:
    """Send a large body at the client's speed, on the event loop. Stop if the client hangs up or stops reading."""
    gone = asyncio.ensure_future(request.hung_up())
    try:
        for piece in _pieces(reply):
            async with asyncio.timeout(UNREAD_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if gone.done():
                return
        await send(_NOTHING)
    except TimeoutError:
        return  # the client notices the truncated body by its Content-Length
    finally:
        gone.cancel()


def _pieces(reply: Reply) -> Iterator[bytes]:
    if reply.file is None:
        for start in range(0, len(reply.body), PIECE):
            yield reply.body[start : start + PIECE]
    else:
        with reply.file:
            while piece := reply.file.read(PIECE):
                yield piece
