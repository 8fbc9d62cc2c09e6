"""The door itself: HTTP/1.1 as it comes, in whatever pieces, from whoever knocks."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from controlplane.server import http1
from controlplane.server.bodies import Bodies
from controlplane.server.gateway import Anything
from controlplane.server.http1 import READ_AHEAD, Connection, Door
from controlplane.web.replies import Reply, Request
from tests.support.plane import PATIENCE_S, Answered, answered, until

BIG = b"0123456789abcdef" * 1024 * 1024  # 16 MiB: more than any socket's buffer


class Doorway:
    """A door on an event loop in a thread, and an application that tells what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.released = asyncio.Event()
        self.hung_up = 0

    def answer(self, request: Request) -> Anything:
        self.seen.append(request)
        if request.path == "/later":
            return self._later(request)
        if request.path == "/body":
            return self._body(request)
        if request.path == "/pieces":
            return self._pieces(request)
        if request.path == "/fails":
            return self._fails()
        if request.path == "/big":
            return Reply(200, [], BIG)
        return Reply(304, [(b"etag", b'"x"')]) if request.path == "/304" else Reply(200, [], b"hello")

    async def _later(self, request: Request) -> Reply:
        request.line.when_gone(self._gone)
        await self.released.wait()
        request.line.when_gone(None)
        return Reply(200, [], b"later")

    async def _body(self, request: Request) -> Reply:
        return Reply(200, [], await Bodies().read(request, 10_000_000))

    async def _pieces(self, request: Request) -> None:
        await request.line.begin(200, [])
        if request.method != "HEAD":
            for piece in (b"one", b"", b"two"):
                await request.line.write(piece)

    async def _fails(self) -> Reply:
        raise ValueError

    def _gone(self) -> None:
        self.hung_up += 1


class Client:
    """A socket, and what comes back on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._loop = asyncio.new_event_loop()
        self._reader = asyncio.StreamReader(loop=self._loop)

    def send(self, data: bytes) -> "Client":
        self.socket.sendall(data)
        return self

    def answer(self) -> Answered:
        async def read() -> Answered:
            waiting = asyncio.ensure_future(answered(self._reader))
            while not waiting.done():
                await asyncio.sleep(0)
                if not waiting.done() and not await self._more():
                    await asyncio.sleep(0)
                    break
            return await asyncio.wait_for(waiting, PATIENCE_S)

        return self._loop.run_until_complete(read())

    def rest(self) -> bytes:
        """Whatever comes until the server ends the connection."""
        found = bytes(self._reader._buffer)  # type: ignore[attr-defined]
        while data := self.socket.recv(65_536):
            found += data
        return found

    async def _more(self) -> bool:
        data = self.socket.recv(65_536)
        if data:
            self._reader.feed_data(data)
        else:
            self._reader.feed_eof()
        return bool(data)

    def close(self) -> None:
        self.socket.close()
        self._loop.close()


class Rig:
    def __init__(self, way: Doorway, door: Door, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.way, self.door, self.port, self.loop = way, door, port, loop
        self._clients: list[Client] = []

    def client(self) -> Client:
        self._clients.append(Client(self.port))
        return self._clients[-1]

    def ask(self, data: bytes) -> Answered:
        return self.client().send(data).answer()

    def call(self, function: Callable[[], object]) -> None:
        """On the door's loop."""
        self.loop.call_soon_threadsafe(function)

    def release(self) -> None:
        self.call(self.way.released.set)

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def _rig() -> Iterator[Rig]:
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    way, listener = Doorway(), socket.create_server(("127.0.0.1", 0))

    async def opened() -> Door:
        door = Door(way.answer)
        await door.open(listener)
        return door

    door = asyncio.run_coroutine_threadsafe(opened(), loop).result(PATIENCE_S)
    rig = Rig(way, door, listener.getsockname()[1], loop)
    try:
        yield rig
    finally:
        rig.close()
        rig.release()
        asyncio.run_coroutine_threadsafe(door.close(within_s=0), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    with _rig() as rig:
        yield rig


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"


def _post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /body HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# --- requests ------------------------------------------------------------------------------------------


def test_it_reads_a_request(rig: Rig) -> None:
    rig.ask(
        b"GET /a%20b/%c3%a9?x=%20&y HTTP/1.1\r\nHost: a\r\n"
        b"X-One: 1\r\nx-one:  2 \r\nCookie: a=1\r\ncookie: b=2\r\n\r\n"
    )
    (request,) = rig.way.seen
    assert (request.method, request.path, request.query) == ("GET", "/a b/é", b"x=%20&y")
    assert request.headers == {b"host": b"a", b"x-one": b"1, 2", b"cookie": b"a=1; b=2"}
    client, server, scheme = request.line.address()
    assert (client, server, scheme) == ("127.0.0.1", ("127.0.0.1", rig.port), "http")


@pytest.mark.parametrize("url", ["http://host:1/x/y?z", "/x/y?z"])
def test_it_reads_the_form_that_proxies_use(rig: Rig, url: str) -> None:
    rig.ask(f"GET {url} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (rig.way.seen[0].path, rig.way.seen[0].query) == ("/x/y", b"z")


def test_it_reads_a_request_byte_by_byte(rig: Rig) -> None:
    client = rig.client()
    for at in range(len(GET)):
        client.send(GET[at : at + 1])
    assert client.answer().body == b"hello"
    assert client.send(GET).answer().body == b"hello"


def test_it_answers_the_same_request_again_and_again(rig: Rig) -> None:
    client, other = rig.client(), GET.replace(b" / ", b" /304 ")
    statuses = [client.send(asked).answer().status for asked in [GET] * 4 + [other] * 4 + [GET] * 2]
    assert statuses == [200] * 4 + [304] * 4 + [200] * 2
    assert [request.path for request in rig.way.seen] == ["/"] * 4 + ["/304"] * 4 + ["/"] * 2


def test_it_answers_each_of_a_pair_that_comes_twice(rig: Rig) -> None:
    """Two requests in one segment are not one request, however alike the next segment is."""
    client = rig.client()
    client.send(GET).answer()
    for _ in range(3):
        client.send(GET + GET)
        assert [client.answer().body, client.answer().body] == [b"hello", b"hello"]
    assert len(rig.way.seen) == 7


def test_it_takes_a_body_however_it_comes(rig: Rig) -> None:
    client, body = rig.client(), b"x" * 300_000
    assert client.send(_post(body)).answer().body == body
    chunked = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(chunked + b"3\r\nabc\r\n4;note=1\r\ndefg\r\n0\r\nAuthorization: Bearer forged\r\n\r\n")
    assert client.answer().body == b"abcdefg"
    assert b"authorization" not in rig.way.seen[-1].headers  # a trailer is no header
    assert client.send(_post(b"")).answer().body == b""
    assert client.send(GET).answer().body == b"hello"


class Transport(asyncio.Transport):
    """Keeps what is written, and whether the connection is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.written = True, b""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, pieces: Any) -> None:
        self.written += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.reading = False


def test_it_reads_on_after_a_body_that_was_there_before_anybody_took_it(rig: Rig) -> None:
    async def asked() -> Transport:
        transport, connection = Transport(), Connection(rig.door)
        connection.connection_made(transport)
        request = _post(b"x" * (READ_AHEAD + 2))
        head = len(request) - READ_AHEAD - 1
        connection.data_received(request[:head])  # with the first byte of the body
        connection.data_received(request[head:])  # more than may wait, and its end
        while not transport.written:
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return transport

    transport = asyncio.run_coroutine_threadsafe(asked(), rig.loop).result(PATIENCE_S)
    assert transport.written.startswith(b"HTTP/1.1 200")
    assert transport.reading


def test_it_tells_a_sender_who_asks_that_the_body_may_come(rig: Rig) -> None:
    client = rig.client().send(_post(b"abc", b"Expect: 100-continue")[:-3])
    assert client.answer().status == 100
    assert client.send(b"abc").answer().body == b"abc"


def test_a_body_that_stays_away_is_noticed(rig: Rig) -> None:
    client = rig.client().send(_post(b"abc")[:-1])
    until(lambda: rig.way.seen)
    client.socket.close()
    until(lambda: not rig.door.connections)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_it_refuses_what_two_might_read_in_two_ways(rig: Rig, data: bytes) -> None:
    client = rig.client().send(data)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert client.rest() == b""
    assert rig.way.seen == []


def test_a_broken_chunk_ends_the_connection(rig: Rig) -> None:
    client = rig.client().send(b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
    until(lambda: rig.way.seen)
    client.send(b"cde\r\n")
    until(lambda: not rig.door.connections)


def test_it_bounds_the_headers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_BYTES", 1_000)
    client = rig.client().send(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 2_000)
    assert client.answer().status == 400
    assert rig.way.seen == []


def test_it_offers_no_other_protocol(rig: Rig) -> None:
    client = rig.client().send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nwhatever"
    )
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.rest() == b""


# --- answers -------------------------------------------------------------------------------------------


def test_it_frames_answers(rig: Rig) -> None:
    client = rig.client()
    plain = client.send(GET).answer()
    assert (plain.headers["content-length"], "connection" in plain.headers) == ("5", False)
    assert plain.headers["date"].endswith(" GMT")
    unchanged = client.send(GET.replace(b" / ", b" /304 ")).answer()
    assert (unchanged.headers["etag"], "content-length" in unchanged.headers) == ('"x"', False)
    assert client.send(GET.replace(b" / ", b" /pieces ")).answer().body == b"onetwo"
    assert client.send(GET).answer().body == b"hello"


@pytest.mark.parametrize("path", [b"/", b"/pieces", b"/big"])
def test_it_sends_no_body_to_head(rig: Rig, path: bytes) -> None:
    client = rig.client().send(b"HEAD %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET,
    ],
)
def test_it_ends_when_no_other_request_may_follow(rig: Rig, data: bytes) -> None:
    head, _, body = rig.client().send(data).rest().partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert body == b"hello"


def test_it_frames_pieces_for_an_old_client_by_the_end(rig: Rig) -> None:
    head, _, body = rig.client().send(b"GET /pieces HTTP/1.0\r\n\r\n").rest().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"onetwo"


def test_a_failure_is_an_answer(rig: Rig) -> None:
    client = rig.client().send(GET.replace(b" / ", b" /fails "))
    assert client.answer().status == 500
    assert client.send(GET).answer().status == 200


def test_a_large_answer_is_not_copied_for_who_does_not_read(rig: Rig) -> None:
    clients = [rig.client().send(GET.replace(b" / ", b" /big ")) for _ in range(8)]
    until(lambda: len(rig.way.seen) == 8)
    assert rig.ask(GET).body == b"hello"  # the others are served meanwhile
    for client in clients[:2]:
        client.send(GET)  # and a next request waits until the answer was taken
        assert client.answer().body == BIG
        assert client.answer().body == b"hello"


# --- order ---------------------------------------------------------------------------------------------


def test_it_answers_in_the_order_of_the_requests(rig: Rig) -> None:
    client = rig.client().send(LATER)
    until(lambda: len(rig.way.seen) == 1)
    client.send(GET)
    client.send(_post(b"abc"))
    assert rig.ask(GET).body == b"hello"  # another connection does not wait for it
    assert len(rig.way.seen) == 2
    rig.release()
    assert [client.answer().body for _ in range(3)] == [b"later", b"hello", b"abc"]


def test_what_comes_in_one_segment_behind_a_wait_is_asked_again(rig: Rig) -> None:
    client = rig.client().send(LATER + GET)
    until(lambda: len(rig.way.seen) == 1)
    rig.release()
    answer = client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"later", "close")
    assert client.rest() == b""


def test_it_tells_who_waits_that_the_client_hung_up(rig: Rig) -> None:
    client = rig.client().send(LATER)
    until(lambda: len(rig.way.seen) == 1)
    client.socket.close()
    until(lambda: rig.way.hung_up == 1)
    rig.release()
    until(lambda: not rig.door.connections)


# --- patience ------------------------------------------------------------------------------------------


def _later(rig: Rig, seconds: int) -> None:
    """As the door looks at its connections when so much time has passed."""

    def look() -> None:
        for connection in list(rig.door.connections):
            connection.look(rig.door.now + seconds)

    rig.call(look)


@pytest.mark.parametrize(
    ("sent", "patience"),
    [(b"", http1.HEAD_WITHIN_S), (b"GET / HT", http1.HEAD_WITHIN_S), (GET, http1.IDLE_S)],
)
def test_it_waits_for_a_request_for_so_long(rig: Rig, sent: bytes, patience: int) -> None:
    client = rig.client().send(sent)
    if sent == GET:
        client.answer()
    until(lambda: len(rig.door.connections) == 1)
    _later(rig, patience - 5)
    assert rig.ask(GET).body == b"hello"
    assert client.socket.fileno() > 0
    _later(rig, patience + 5)
    assert client.rest() == b""


def test_it_waits_for_an_answer_as_long_as_it_takes(rig: Rig) -> None:
    client = rig.client().send(LATER)
    until(lambda: rig.way.seen)
    _later(rig, 10_000)
    rig.release()
    assert client.answer().body == b"later"


def test_it_does_not_wait_for_a_client_that_reads_nothing(rig: Rig) -> None:
    rig.client().send(GET.replace(b" / ", b" /big "))
    until(lambda: rig.way.seen)
    _later(rig, 0)
    _later(rig, http1.UNREAD_S + 5)
    until(lambda: not rig.door.connections)


def test_it_reads_on_after_a_refusal_so_that_the_refusal_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends with bytes unread is reset, and a reset takes the answer with it."""
    monkeypatch.setitem(
        http1._PATIENCE, http1.LINGERING, 600
    )  # not over before a slow machine has sent it all
    client = rig.client().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
    for _ in range(20):
        client.send(b"x" * 65_536)
    assert client.rest() == b""
    _later(rig, 605)
    until(lambda: not rig.door.connections)


def test_it_bounds_the_connections(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "CONNECTIONS", 1)
    first = rig.client().send(GET)
    assert first.answer().status == 200
    refused = rig.client().answer()
    assert (refused.status, refused.headers["connection"]) == (503, "close")
    assert int(refused.headers["retry-after"]) > 0
    assert first.send(GET).answer().status == 200


# --- the end -------------------------------------------------------------------------------------------


def test_it_owes_answers_when_it_closes(rig: Rig) -> None:
    idle, waiting = rig.client().send(GET), rig.client().send(LATER)
    idle.answer()
    until(lambda: len(rig.way.seen) == 2)
    closed = asyncio.run_coroutine_threadsafe(rig.door.close(PATIENCE_S), rig.loop)
    assert idle.rest() == b""
    assert not closed.done()
    rig.release()
    answer = waiting.answer()
    assert (answer.body, answer.headers["connection"]) == (b"later", "close")
    closed.result(PATIENCE_S)
    with pytest.raises(ConnectionRefusedError):
        rig.client()


def test_it_ends_at_last_although_somebody_waits(rig: Rig) -> None:
    client = rig.client().send(LATER)
    until(lambda: rig.way.seen)
    asyncio.run_coroutine_threadsafe(rig.door.close(within_s=0.1), rig.loop).result(PATIENCE_S)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        client.answer()
