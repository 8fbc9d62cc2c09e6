"""HTTP/1.1 in any pieces and from any client, through the server that `serve` runs.

Black-box tests: an application that echoes its requests runs behind granian with the limits of `serve`.
"""

import asyncio
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from granian.http import HTTP1Settings

from controlplane.core.errors import PointsmanError
from controlplane.server import messages, process, worker
from controlplane.server.bodies import Bodies
from controlplane.server.messages import Answer, Application
from controlplane.web.replies import Reply, Request, problem
from tests.dataplane import request_corpus
from tests.dataplane.request_corpus import Case, Read
from tests.support.plane import PATIENCE_S, Answered, Granian, answered, until

BIG = b"0123456789abcdef" * 1024 * 1024  # 16 MiB: more than any socket's buffer


class Recorder:
    """An application that records its requests, and answers depending on the path."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.read: list[Read] = []
        self.cut = 0  # incomplete bodies
        self.hung_up = 0
        self.released = asyncio.Event()

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        match request.path:
            case "/later":
                return self._later(request)
            case "/fails":
                return self._fails()
            case "/big":
                return Reply(200, [(b"content-length", b"%d" % len(BIG))], BIG)
            case "/unread":
                return Reply(404, [(b"content-length", b"7")], b"nothing")
            case "/limited":
                return self._limited(request)
            case "/304":
                return Reply(304, [(b"etag", b'"x"')])
        return self._echo(request)

    async def _echo(self, request: Request) -> Reply:
        try:
            body = await Bodies().read(request, 10_000_000, "anybody")
        except ConnectionResetError:
            self.cut += 1
            raise
        self.read.append((request.method, request.path, body))
        body = body or b"hello"
        return Reply(200, [(b"content-length", b"%d" % len(body))], body)

    async def _limited(self, request: Request) -> Reply:
        try:
            await Bodies().read(request, 1_000, "a key")
        except PointsmanError as error:
            return problem(error)
        return Reply(200, [(b"content-length", b"2")], b"ok")

    async def _later(self, request: Request) -> Reply:
        gone = asyncio.ensure_future(request.hung_up())
        released = asyncio.ensure_future(self.released.wait())
        await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
        self.hung_up += gone.done()
        for waiting in (gone, released):
            waiting.cancel()
        return Reply(200, [(b"content-length", b"5")], b"later")

    async def _fails(self) -> Reply:
        raise ValueError


class Client:
    """A socket, and the answers on it."""

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
                if not waiting.done() and not self._more():
                    await asyncio.sleep(0)
                    break
            return await asyncio.wait_for(waiting, PATIENCE_S)

        return self._loop.run_until_complete(read())

    def rest(self) -> bytes:
        """Read until the server closes the connection."""
        found = bytes(self._reader._buffer)  # type: ignore[attr-defined]
        with suppress(ConnectionResetError):  # the server closed it with unread data
            while data := self.socket.recv(65_536):
                found += data
        return found

    def _more(self) -> bool:
        data = self.socket.recv(65_536)
        if data:
            self._reader.feed_data(data)
        else:
            self._reader.feed_eof()
        return bool(data)

    def close(self) -> None:
        self.socket.close()
        self._loop.close()


class Rig(Granian):
    def __init__(self, **limits: Any) -> None:
        self.recorder = Recorder()
        super().__init__(Application(self.recorder.answer, nullcontext), **limits)
        self._clients: list[Client] = []

    def client(self) -> Client:
        self._clients.append(Client(self.port))
        return self._clients[-1]

    def ask(self, data: bytes) -> Answered:
        return self.client().send(data).answer()

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.recorder.released.set)

    def __exit__(self, *error: object) -> None:
        for client in self._clients:
            client.close()
        self.release()
        super().__exit__(*error)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    """For tests that leave its state unchanged."""
    with Rig() as rig:
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
    (request,) = rig.recorder.seen
    assert (request.method, request.path, request.query) == ("GET", "/a b/é", b"x=%20&y")
    assert request.headers == {b"host": b"a", b"x-one": b"1, 2", b"cookie": b"a=1; b=2"}
    assert request.scope["client"][0] == "127.0.0.1"
    assert (int(request.scope["server"][1]), request.scope["scheme"]) == (rig.port, "http")


@pytest.mark.parametrize("url", ["http://host:1/x/y?z", "/x/y?z"])
def test_it_reads_the_absolute_form_that_proxies_use(rig: Rig, url: str) -> None:
    rig.ask(f"GET {url} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (rig.recorder.seen[0].path, rig.recorder.seen[0].query) == ("/x/y", b"z")


def test_it_reads_a_request_byte_by_byte(shared: Rig) -> None:
    client = shared.client()
    for at in range(len(GET)):
        client.send(GET[at : at + 1])
    assert client.answer().body == b"hello"
    assert client.send(GET).answer().body == b"hello"


def test_it_answers_several_requests_in_one_segment(shared: Rig) -> None:
    client, before = shared.client(), len(shared.recorder.seen)
    for _ in range(3):
        client.send(GET + GET)
        assert [client.answer().body, client.answer().body] == [b"hello", b"hello"]
    assert len(shared.recorder.seen) == before + 6


def test_it_accepts_a_body_in_any_framing(shared: Rig) -> None:
    client, body = shared.client(), b"x" * 300_000
    assert client.send(_post(body)).answer().body == body
    chunked = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(chunked + b"3\r\nabc\r\n4;note=1\r\ndefg\r\n0\r\nAuthorization: Bearer forged\r\n\r\n")
    assert client.answer().body == b"abcdefg"
    assert b"authorization" not in shared.recorder.seen[-1].headers  # a trailer is not a header
    assert client.send(_post(b"")).answer().body == b"hello"


def test_it_answers_expect_100_continue(shared: Rig) -> None:
    client = shared.client().send(_post(b"abc", b"Expect: 100-continue")[:-3])
    assert client.answer().status == 100
    assert client.send(b"abc").answer().body == b"abc"


def test_a_missing_body_is_noticed(rig: Rig) -> None:
    client = rig.client().send(_post(b"abc")[:-1])
    until(lambda: rig.recorder.seen)
    client.socket.close()
    until(lambda: rig.recorder.cut == 1)
    assert rig.recorder.read == []


@pytest.mark.parametrize("case", request_corpus.CASES, ids=lambda case: case.name)
def test_it_allows_no_request_smuggling(shared: Rig, case: Case) -> None:
    """It reads the request as the RFC does, or refuses it and closes the connection."""
    shared.recorder.read.clear()
    client = shared.client()
    client.socket.sendall(case.data)
    # It is over when the server has closed the connection, or has answered one more request after it.
    with suppress(OSError):
        client.socket.sendall(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    statuses = [int(line.split()[1]) for line in client.rest().splitlines() if line.startswith(b"HTTP/1.1 ")]
    read = [one for one in shared.recorder.read if one[1] != "/last"]
    refused = read == [] and statuses[:-1] == [] and all(400 <= status < 500 for status in statuses)
    assert refused or (case.reads is not None and read == case.reads and set(statuses) == {200})
    assert case.reads is not None or ("GET", "/last", b"") not in shared.recorder.read


def test_it_limits_the_headers(rig: Rig) -> None:
    client = rig.client()
    with suppress(OSError):  # the server hangs up
        for _ in range(64):
            client.send(b"GET / HTTP/1.1\r\nX: " + b"y" * process.HEAD_BYTES)
    assert client.rest()[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")
    assert rig.recorder.seen == []


def test_it_limits_the_trailers(rig: Rig) -> None:
    """They come after the body, where nothing else is limited: without a limit they would fill the memory."""
    client = rig.client().send(b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    sent, trailer = 0, b"X-Trailer: " + b"y" * 1_000 + b"\r\n"
    with pytest.raises(OSError):  # noqa: PT011 — reset, or a broken pipe
        while sent < 64_000_000:
            client.socket.sendall(trailer * 100)
            sent += 100 * len(trailer)
    assert rig.recorder.read == []


# --- answers -------------------------------------------------------------------------------------------


def test_it_frames_answers(shared: Rig) -> None:
    client = shared.client()
    plain = client.send(GET).answer()
    assert (plain.headers["content-length"], "connection" in plain.headers) == ("5", False)
    assert plain.headers["date"].endswith(" GMT")
    unchanged = client.send(GET.replace(b" / ", b" /304 ")).answer()
    assert (unchanged.status, unchanged.headers["etag"]) == (304, '"x"')
    assert "content-length" not in unchanged.headers
    assert client.send(GET).answer().body == b"hello"


@pytest.mark.parametrize("path", [b"/", b"/big"])
def test_it_sends_no_body_to_head(shared: Rig, path: bytes) -> None:
    client = shared.client().send(b"HEAD %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b""


def test_it_closes_when_no_other_request_may_follow(shared: Rig) -> None:
    for data in (b"GET / HTTP/1.0\r\n\r\n", GET.replace(b"Host", b"Connection: close\r\nHost") + GET):
        head, _, body = shared.client().send(data).rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.")
        assert body == b"hello"


def _chunked(path: bytes, body: bytes) -> bytes:
    pieces = (body[at : at + 4_096] for at in range(0, len(body), 4_096))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % (path, chunks)


@pytest.mark.parametrize("path", [b"/limited", b"/unread"])
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1_500, 20_000, 100_000, 1_600_000])
def test_a_connection_closes_if_a_body_was_not_read_and_says_so(
    shared: Rig, size: int, chunked: bool, reused: bool, path: bytes
) -> None:
    """Otherwise the client sends its next request on it, which is reset. And the answer arrives, however long the
    body is: a connection that is closed with unread bytes is reset, and takes the answer with it."""
    client = shared.client()
    if reused:
        assert client.send(GET).answer().status == 200
    body = b"x" * size
    client.send(_chunked(path, body) if chunked else _post(body).replace(b"/body", path))
    answer = client.answer()
    assert answer.status in (404, 413)
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""


def test_a_connection_stays_open_if_the_body_was_read(shared: Rig) -> None:
    client = shared.client()
    for data in (_post(b"x" * 900).replace(b"/body", b"/limited"), _chunked(b"/limited", b"x" * 900), GET):
        answer = client.send(data).answer()
        assert (answer.status, answer.headers.get("connection")) == (200, None)


def test_an_answer_does_not_wait_for_a_body_that_never_comes(shared: Rig) -> None:
    client = shared.client().send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_a_large_answer_is_sent_in_pieces(shared: Rig) -> None:
    answer = shared.ask(GET.replace(b" / ", b" /big "))
    assert (answer.body == BIG, answer.headers["content-length"]) == (True, str(len(BIG)))


def test_clients_that_do_not_read_hold_little_memory_and_delay_nobody(rig: Rig) -> None:
    before = _resident()
    clients = [rig.client().send(GET.replace(b" / ", b" /big ")) for _ in range(16)]
    until(lambda: len(rig.recorder.seen) == 16)
    assert rig.ask(GET).body == b"hello"
    assert _resident() - before < 8 * len(BIG)  # not one copy each
    for client in clients[:2]:
        client.send(GET)  # a next request waits until the answer was read
        assert client.answer().body == BIG
        assert client.answer().body == b"hello"


def _resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_it_gives_up_on_a_client_that_reads_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    send_pieces = messages._send_pieces

    async def observed(*arguments: Any) -> None:
        await send_pieces(*arguments)
        ended.set()

    monkeypatch.setattr(messages, "UNREAD_S", 0.2)
    monkeypatch.setattr(messages, "_send_pieces", observed)
    client = rig.client().send(GET.replace(b" / ", b" /big "))
    assert ended.wait(PATIENCE_S)
    # Data already sent still arrives, and then the connection ends, so nobody takes it for the whole answer.
    assert len(client.rest()) < len(BIG)


# --- order ---------------------------------------------------------------------------------------------


def test_it_answers_in_the_order_of_the_requests(rig: Rig) -> None:
    client = rig.client().send(LATER + GET + _post(b"abc"))
    until(lambda: len(rig.recorder.seen) == 1)
    assert rig.ask(GET).body == b"hello"  # another connection does not wait for it
    rig.release()
    assert [client.answer().body for _ in range(3)] == [b"later", b"hello", b"abc"]


def test_a_waiting_answer_is_told_that_its_client_hung_up(rig: Rig) -> None:
    client = rig.client().send(LATER)
    until(lambda: len(rig.recorder.seen) == 1)
    client.socket.close()
    until(lambda: rig.recorder.hung_up == 1)


# --- timeouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET])
def test_it_limits_the_wait_for_a_request(sent: bytes) -> None:
    with Rig(http1_settings=HTTP1Settings(header_read_timeout=300)) as rig:
        client = rig.client().send(sent)
        if sent == GET:
            client.answer()
        assert client.rest()[:12] in (b"", b"HTTP/1.1 408")
        waiting = rig.client().send(LATER)  # an answer may take any time
        until(lambda: rig.recorder.seen and rig.recorder.seen[-1].path == "/later")
        assert rig.ask(GET).body == b"hello"
        rig.release()
        assert waiting.answer().body == b"later"


def test_an_accepted_connection_gives_up_on_a_silent_client(rig: Rig) -> None:
    option = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert worker._limited() >= 2  # this one, and the server's
        with (
            socket.create_connection(listener.getsockname()),
            listener.accept()[0] as accepted,
        ):
            assert accepted.getsockopt(*option) == worker.SILENT_S * 1000


def test_it_limits_the_connections() -> None:
    with Rig(backpressure=1) as rig:
        first = rig.client().send(GET)
        assert first.answer().status == 200
        second = rig.client().send(GET)  # it waits to be accepted
        assert first.send(GET).answer().status == 200
        assert len(rig.recorder.seen) == 2
        first.close()
        assert second.answer().status == 200


# --- shutdown ----------------------------------------------------------------------------------------


def test_it_answers_pending_requests_before_it_ends() -> None:
    with Rig() as rig:
        idle, waiting = rig.client().send(GET), rig.client().send(LATER)
        idle.answer()
        until(lambda: len(rig.recorder.seen) == 2)
        rig.loop.call_soon_threadsafe(rig.embedded.stop)
        assert idle.rest() == b""
        rig.release()
        assert waiting.answer().body == b"later"
