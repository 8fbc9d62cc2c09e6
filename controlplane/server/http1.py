"""HTTP/1.1 on a socket, the door that `manage.py serve` has: llhttp parses, uvloop reads and writes.

A server that speaks ASGI spends more on a poll than the poll itself takes (benchmarks/servers.py): a scope, a task,
two messages, and with granian another thread. Here a request that can be answered at once is answered in the
very call that read it, without a task; and a long poll holds its connection, its request and one task.

What is sent in one segment behind a request that has to wait is not read: the connection ends after that
answer, and its sender asks again (RFC 9112 9.3.2). What comes in later segments waits in the socket.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools

from controlplane.core.errors import MalformedBody, PointsmanError, Unavailable
from controlplane.server.gateway import Anything
from controlplane.web.replies import Header, Reply, Request, head, is_sized, joined, problem

log = logging.getLogger(__name__)

CONNECTIONS = 20_000  # held by one process at once: long polls, mostly
HEAD_BYTES = 64 * 1024  # of a request's line and headers
HEAD_WITHIN_S = 30
IDLE_S = 75  # between requests; longer than clients and proxies keep a connection
UNREAD_S = 60  # nobody takes any of an answer
LINGER_S = 5  # for the rest of a body that was refused, so that the refusal is read before the end
READ_AHEAD = 256 * 1024  # bytes of a body that wait to be taken
JOINED = 64 * 1024  # bytes of a body that is sent in one piece with its head
SWEPT_EVERY_S = 5

IDLE, HEAD, BUSY, LINGERING = range(4)
_PATIENCE = {IDLE: IDLE_S, HEAD: HEAD_WITHIN_S, LINGERING: LINGER_S}


class Door:
    """The connections of one process, and what answers their requests."""

    def __init__(self, answer: Callable[[Request], Anything]) -> None:
        self.answer = answer
        self.connections: set[Connection] = set()
        self.closing = False  # connections end with the answer that they wait for
        self.now = 0  # seconds, of a clock that is looked at once a second
        self.date = b""  # the header of this second, and the empty line
        self.loop = asyncio.get_running_loop()
        self._tick()

    async def open(self, listener: socket.socket) -> None:
        self._server = await self.loop.create_server(lambda: Connection(self), sock=listener)

    async def close(self, within_s: float = 30) -> None:
        """Take no more in, give the answers that are owed, and end every connection."""
        self._server.close()
        self.closing = True
        for connection in list(self.connections):
            connection.leave()
        deadline = self.loop.time() + within_s
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        self._ticking.cancel()

    def _tick(self) -> None:
        self.now = int(self.loop.time())
        self.date = b"date: %s\r\n\r\n" % formatdate(time.time(), usegmt=True).encode()
        if self.now % SWEPT_EVERY_S == 0:
            for connection in list(self.connections):
                connection.look(self.now)
        self._ticking = self.loop.call_later(1, self._tick)


class Connection(asyncio.Protocol):
    """One client's connection, and the `Line` of its present request."""

    __slots__ = (
        "_begun", "_behind", "_body", "_chunked", "_complete", "_deaf", "_door", "_expects", "_gone", "_headers",
        "_keep", "_known", "_last", "_parser", "_phase", "_reader", "_request", "_room", "_since", "_size", "_task",
        "_transport", "_unsent", "_url", "gone",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        self._door = door
        self._parser: Any = httptools.HttpRequestParser(self)
        self._phase, self._since = HEAD, door.now
        self._begun = 0  # requests in the piece that is being read
        self._size = 0  # bytes of the present head, as far as they came
        self._unsent = 0  # bytes that waited to be sent when it was last looked at
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._body: list[bytes] | None = None  # None: the present request has none
        self._complete = True  # of the present request nothing is to come any more
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._expects = False  # its sender waits to be told to send the body
        self._keep = True  # another request may follow
        self._deaf = False  # whatever else comes is not listened to
        self._chunked: bool | None = None  # how an answer in pieces is framed, once it has begun
        self._behind: list[bytes] = []  # came while the present request was answered
        self._known = b""  # a whole request without a body, and …
        self._last: Request | None = None  # … what it was parsed to
        self._gone: Callable[[], None] | None = None
        self.gone = False

    # --- what the transport says ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._door.connections.add(self)
        if len(self._door.connections) > CONNECTIONS:
            self._refuse(Unavailable("This process holds as many connections as it may.", retry_after=10))

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._complete and (self._phase == BUSY or self._room is not None):
            self._behind.append(data)
            self._transport.pause_reading()
            return
        if data == self._known and self._phase == IDLE:
            # A router that asks the same again, byte by byte, as they do until something changes.
            self._begin(cast(Request, self._last))
            return
        before, self._begun, self._last = self._phase, 0, None
        self._parse(data)
        if before == self._phase == IDLE and self._begun == 1 and self._last is not None:
            self._known = data
            return
        self._known, self._last = b"", None
        if self._phase == HEAD and not self._deaf:
            self._size += len(data)
            if self._size > HEAD_BYTES:
                self._refuse(MalformedBody(f"The headers may be {HEAD_BYTES} bytes at most."))

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # we offer no other protocol; the request was answered as if it had not asked
        except httptools.HttpParserCallbackError:
            log.exception("a request failed while it was read")
            self._transport.abort()
        except httptools.HttpParserError as error:
            if self._phase == BUSY:  # in the middle of a body, which somebody waits for
                self._transport.abort()
            elif not self._deaf:
                self._refuse(MalformedBody(f"This is not HTTP/1.1: {error}."))

    def eof_received(self) -> None:
        """Half a connection is none: whoever hangs up does not wait for an answer."""

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = self._deaf = True
        self._door.connections.discard(self)
        self._behind.clear()
        self._parser = self._last = self._request = None  # they lead back here
        self._wake(self._reader)
        self._wake(self._room)
        if self._gone is not None:
            self._gone()

    def pause_writing(self) -> None:
        self._room = self._door.loop.create_future()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        self._wake(room)
        self._read_on()

    # --- what the parser says -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        # Behind a request that waits, or more answers than its sender reads.
        if self._phase == BUSY or self._room is not None:
            self._deaf, self._keep = True, False
            return
        self._begun += 1
        self._headers, self._url = {}, b""
        self._phase, self._since = HEAD, self._door.now

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip(b" \t")
        headers = self._headers
        headers[name] = joined(name, headers[name], value) if name in headers else value

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        headers, parser = self._headers, self._parser
        self._headers = {}  # trailers are nobody's
        self._size = 0
        version = parser.get_http_version()
        if objection := _objection(headers, version):
            self._refuse(MalformedBody(objection))
            return
        path, query = _split(self._url)
        request = Request(parser.get_method().decode("ascii"), path, query, headers, self)
        self._keep = version == "1.1" and parser.should_keep_alive() and not parser.should_upgrade()
        if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
            self._body, self._complete = [], False
            self._expects = headers.get(b"expect", b"").lower() == b"100-continue"
            self._begin(request)
        else:
            self._request = request

    def on_body(self, piece: bytes) -> None:
        if self._deaf or self._body is None:
            return
        self._body.append(piece)
        if len(self._body) > 1 and sum(map(len, self._body)) > READ_AHEAD:
            self._transport.pause_reading()
        self._wake(self._reader)

    def on_message_complete(self) -> None:
        if self._deaf:
            return
        if self._body is None:
            request, self._request = self._request, None
            self._last = request
            self._begin(cast(Request, request))
        else:
            self._complete = True
            self._wake(self._reader)

    # --- answering ------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self._phase = BUSY
        answer = self._door.answer(request)
        if isinstance(answer, Reply):
            self._finish(answer, request)
        else:
            self._task = self._door.loop.create_task(self._run(answer, request))

    async def _run(self, answer: Any, request: Request) -> None:
        try:
            reply = await answer
        except ConnectionResetError:
            self._transport.abort()
            return
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            if self._chunked is not None:
                self._transport.abort()  # half an answer must not pass for a whole one
                return
            reply = problem(PointsmanError("Something went wrong here; it was written to the server's log."))
        self._task = None
        if not self.gone:
            self._finish(reply, request)

    def _finish(self, reply: Reply | None, request: Request) -> None:
        """Send it (None: it was sent piece by piece) and be ready for the next request, or end."""
        keep = self._keep and self._complete and not self._door.closing
        if reply is not None:
            self._send(reply, request.method != "HEAD", keep)
        elif self._chunked and request.method != "HEAD":
            self._transport.write(b"0\r\n\r\n")
        self._chunked = None
        if not keep:
            self._end()
            return
        # A body that came faster than it was taken has stopped the transport, maybe with its last byte.
        stopped = bool(self._behind) or self._body is not None
        self._phase, self._since, self._body = IDLE, self._door.now, None
        if stopped:
            self._read_on()

    def _read_on(self) -> None:
        """Whatever came meanwhile, and then what is still to come."""
        if self._room is not None or self._transport.is_closing():
            return
        if self._phase == BUSY and self._complete:
            return  # it waits for the answer; a transport that reads on would only fill `_behind`
        self._transport.resume_reading()
        if self._behind:
            behind = b"".join(self._behind)
            self._behind.clear()
            self.data_received(behind)

    def _send(self, reply: Reply, with_body: bool, keep: bool) -> None:
        start = reply.head + (self._door.date if keep else b"connection: close\r\n" + self._door.date)
        if not with_body or not reply.body:
            self._transport.write(start)
        elif len(reply.body) <= JOINED:
            self._transport.write(start + reply.body)
        else:  # without a copy, however slowly it is read
            self._transport.writelines((start, memoryview(reply.body)))

    def _refuse(self, error: PointsmanError) -> None:
        self._send(problem(error), True, False)
        self._end()

    def _end(self) -> None:
        """Close once all is sent; but what was half read is read on, else its sender might not see the answer."""
        self._deaf, self._keep = True, False
        if self._complete and self._phase == BUSY:
            self._transport.close()
        else:
            self._phase, self._since = LINGERING, self._door.now
            self._transport.write_eof()
            self._transport.resume_reading()

    # --- the line of a request ------------------------------------------------------------------------

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        self._gone = callback

    async def piece(self) -> bytes:
        if self._body is None:
            return b""
        while not self._body:
            if self.gone:
                raise ConnectionResetError
            if self._complete:
                return b""
            if self._expects:
                self._expects = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._reader = self._door.loop.create_future()
            await self._reader
        taken = b"".join(self._body)
        self._body.clear()
        if not self._complete and self._room is None:
            self._transport.resume_reading()
        return taken

    async def begin(self, status: int, headers: list[Header]) -> None:
        self._keep = self._keep and self._complete and not self._door.closing
        self._chunked = not is_sized(status, headers) and self._parser.get_http_version() != "1.0"
        extra = b"" if not self._chunked else b"transfer-encoding: chunked\r\n"
        extra += b"" if self._keep else b"connection: close\r\n"
        self._transport.write(head(status, headers) + extra + self._door.date)

    async def write(self, piece: bytes) -> None:
        if piece and self._chunked:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        if piece:
            self._transport.write(piece)
        if self._room is not None:
            await self._room
        if self.gone:
            raise ConnectionResetError

    def address(self) -> tuple[str, tuple[str, int], str]:
        client = self._transport.get_extra_info("peername") or ("", 0)
        server = self._transport.get_extra_info("sockname") or ("localhost", 80)
        return client[0], (server[0], server[1]), "http"

    # --- the door's side ------------------------------------------------------------------------------

    def leave(self) -> None:
        """End now, or with the answer that is owed."""
        if self._phase != BUSY:
            self._deaf = True
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def look(self, now: int) -> None:
        """End it if it has been waiting for the other side too long."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        if unsent:
            if now - self._since > UNREAD_S:
                self._transport.abort()
        elif now - self._since > _PATIENCE.get(self._phase, now):
            self._transport.abort()

    # --- inside ---------------------------------------------------------------------------------------

    @staticmethod
    def _wake(waiting: "asyncio.Future[None] | None") -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def _objection(headers: dict[bytes, bytes], version: str) -> str | None:
    """What the parser lets pass and RFC 9112 does not (3.2, 6.1)."""
    if b"host" not in headers and version == "1.1":
        return "A request in HTTP/1.1 names its host."
    if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        return "Bodies may be chunked, and encoded in no other way."
    return None


def _split(url: bytes) -> tuple[str, bytes]:
    """The path, percent-decoded, and the query as it came."""
    if url[:1] != b"/" and b"://" in url[:9]:  # the absolute form, which proxies use
        _, _, rest = url.partition(b"://")
        url = b"/" + rest.partition(b"/")[2]
    path, _, query = url.partition(b"?")
    return (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace"), query
