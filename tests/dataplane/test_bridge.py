"""Django behind the gateway: threads take whole answers and never wait for a client; headers in both directions."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from controlplane.server import bridge
from controlplane.server.bridge import Bridge, Environ
from controlplane.server.messages import Application
from tests.dataplane.test_http import Client
from tests.support.plane import PATIENCE_S, Answered, Granian, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wsgi:
    """A WSGI application that gives the configured answer and records its requests."""

    def __init__(self) -> None:
        self.environ: Environ = {}
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = [b"whole"]
        self.fails = False
        self.body = b""
        self.threads: set[int] = set()
        self.closed = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.running = 0

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> "Wsgi":
        self.environ, self.body = environ, environ["wsgi.input"].read()
        start_response("201 Created", self.headers)
        return self

    def __iter__(self) -> Iterator[bytes]:
        self.running += 1
        assert self.may_go_on.wait(PATIENCE_S)
        for piece in self.pieces:
            self.threads.add(threading.get_ident())
            yield piece
        if self.fails:
            raise ValueError

    def close(self) -> None:
        self.closed += 1


class Rig(Granian):
    def __init__(self, wsgi: Wsgi) -> None:
        self.bridge = Bridge(wsgi, threads=2)
        super().__init__(Application(self.bridge, nullcontext))

    def ask(self, data: bytes = GET) -> Answered:
        client = Client(self.port)
        try:
            return client.send(data).answer()
        finally:
            client.close()


@pytest.fixture
def wsgi() -> Wsgi:
    return Wsgi()


@pytest.fixture
def rig(wsgi: Wsgi) -> Iterator[Rig]:
    with Rig(wsgi) as rig:
        yield rig
    rig.bridge.close()


def test_it_passes_a_request_on(rig: Rig, wsgi: Wsgi) -> None:
    answer = rig.ask(
        b"POST /caf%C3%A9?q=%20 HTTP/1.1\r\nHost: a:1\r\nContent-Type: text/x\r\nContent-Length: 3\r\n"
        b"X-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 6.6.6.6\r\nCookie: a=1\r\nCookie: b=2\r\n\r\nabc"
    )
    environ = wsgi.environ
    assert (answer.status, answer.body, wsgi.body) == (201, b"whole", b"abc")
    assert (environ["REQUEST_METHOD"], environ["QUERY_STRING"]) == ("POST", "q=%20")
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/café"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "3")
    assert (environ["HTTP_X_FORWARDED_FOR"], environ["HTTP_COOKIE"]) == ("1.1.1.1", "a=1; b=2")
    # This machine is a trusted proxy (TRUSTED_PROXIES), so its X-Forwarded-For counts.
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("1.1.1.1", str(rig.port))
    assert wsgi.closed == 1


def test_it_reads_the_pieces_of_an_answer_in_one_thread(rig: Rig, wsgi: Wsgi) -> None:
    wsgi.pieces = [b"%d\n" % number for number in range(500)]
    answer = rig.ask()
    assert (answer.body, answer.headers["content-length"]) == (b"".join(wsgi.pieces), "1890")
    assert len(wsgi.threads) == 1  # a database connection belongs to its thread


def test_an_answer_with_a_length_keeps_it(rig: Rig, wsgi: Wsgi) -> None:
    wsgi.pieces, wsgi.headers = [b"ab", b"cd"], [("Content-Length", "4"), ("X-A", "1")]
    answer = rig.ask()
    assert (answer.body, answer.headers["x-a"]) == (b"abcd", "1")


def test_a_large_answer_goes_through_a_file(rig: Rig, wsgi: Wsgi) -> None:
    wsgi.pieces = [bytes([number]) * bridge.IN_MEMORY for number in range(5)]
    answer = rig.ask()
    assert answer.body == b"".join(wsgi.pieces)
    assert answer.headers["content-length"] == str(5 * bridge.IN_MEMORY)
    assert wsgi.closed == 1


def test_it_refuses_an_endless_answer(rig: Rig, wsgi: Wsgi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "IN_MEMORY", 1_000)
    monkeypatch.setattr(bridge, "ANSWER_LIMIT", 10_000)
    wsgi.pieces = [b"x" * 1_000] * 100
    answer = rig.ask()
    assert (answer.status, answer.code) == (422, "invalid_input")
    assert wsgi.closed == 1


@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]])
def test_it_sends_no_body_to_head(rig: Rig, wsgi: Wsgi, headers: list[tuple[str, str]]) -> None:
    wsgi.headers = headers
    client = Client(rig.port)
    data = client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").rest()
    client.close()
    assert data.startswith(b"HTTP/1.1 201 Created\r\n")
    assert data.endswith(b"\r\n\r\n")


def test_no_thread_waits_for_a_client_that_does_not_read(rig: Rig, wsgi: Wsgi) -> None:
    """Ten connections send requests and do not read, with two threads: an eleventh is answered."""
    wsgi.pieces = [b"x" * 1_000_000] * 20
    silent = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(10)]
    try:
        for connection in silent:
            connection.sendall(GET * 3)
        until(lambda: wsgi.closed == 10)
        assert len(rig.ask().body) == 20_000_000
    finally:
        for connection in silent:
            connection.close()


def test_no_thread_waits_for_a_client_that_does_not_send(rig: Rig, wsgi: Wsgi) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"
    slow = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(10)]
    try:
        for connection in slow:
            connection.sendall(head)
        assert rig.ask().body == b"whole"
        assert wsgi.running == 1
    finally:
        for connection in slow:
            connection.close()


def test_it_limits_the_queue_for_threads(rig: Rig, wsgi: Wsgi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.bridge, "_most", 3)
    wsgi.may_go_on.clear()
    clients = [Client(rig.port).send(GET) for _ in range(3)]
    until(lambda: rig.bridge._running == 3)
    refused = rig.ask()
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "unavailable", "2")
    wsgi.may_go_on.set()
    assert [client.answer().body for client in clients] == [b"whole"] * 3
    for client in clients:
        client.close()
    until(lambda: rig.bridge._running == 0)


def test_it_limits_the_bytes_that_wait_for_threads(
    rig: Rig, wsgi: Wsgi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database does not answer, anybody could fill the memory with bodies for the sign-in page."""
    monkeypatch.setattr(bridge, "MOST_HELD", 5)
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    wsgi.may_go_on.clear()
    client = Client(rig.port).send(post)
    until(lambda: rig.bridge._running == 1)
    refused = rig.ask(post)
    assert (refused.status, refused.code) == (503, "unavailable")
    wsgi.may_go_on.set()
    assert client.answer().body == b"whole"
    client.close()
    until(lambda: rig.bridge._running == 0)
    assert rig.ask(post).body == b"whole"


def test_a_failure_in_the_middle_is_not_taken_for_the_end(wsgi: Wsgi) -> None:
    """The gateway turns it into an answer (`Gateway._guarded`)."""
    wsgi.pieces, wsgi.fails = [b"one", b"two"], True
    with Rig(wsgi) as rig:
        answer = rig.ask()
    rig.bridge.close()
    assert answer.status == 500
    assert wsgi.closed == 1
