"""Django behind the gateway: whole answers, answers in pieces, and what becomes of headers on the way."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from controlplane.server.bridge import Bridge, Environ
from tests.dataplane.test_http1 import Rig, _rig
from tests.support.plane import PATIENCE_S


class Application:
    """A WSGI application that answers what it is told to, and remembers how it was asked."""

    def __init__(self) -> None:
        self.environ: Environ = {}
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = [b"whole"]
        self.body = b""
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> "Application":
        self.environ, self.body = environ, environ["wsgi.input"].read()
        start_response("201 Created", self.headers)
        return self

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.threads.add(threading.get_ident())
            yield piece

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def rig(application: Application) -> Iterable[Rig]:
    bridge = Bridge(application, threads=2)
    with _rig() as rig:
        rig.door.answer = bridge
        yield rig
    bridge.close()


def test_it_passes_a_request_on(rig: Rig, application: Application) -> None:
    answer = rig.ask(
        b"POST /caf%C3%A9?q=%20 HTTP/1.1\r\nHost: a:1\r\nContent-Type: text/x\r\nContent-Length: 3\r\n"
        b"X-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 6.6.6.6\r\nCookie: a=1\r\nCookie: b=2\r\n\r\nabc"
    )
    environ = application.environ
    assert (answer.status, answer.body, application.body) == (201, b"whole", b"abc")
    assert (environ["REQUEST_METHOD"], environ["QUERY_STRING"]) == ("POST", "q=%20")
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/café"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "3")
    assert (environ["HTTP_X_FORWARDED_FOR"], environ["HTTP_COOKIE"]) == ("1.1.1.1", "a=1; b=2")
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("127.0.0.1", str(rig.port))
    assert application.closed.is_set()


def test_it_sends_pieces_as_they_come_from_one_thread(rig: Rig, application: Application) -> None:
    application.pieces = [b"%d\n" % number for number in range(500)]
    answer = rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == b"".join(application.pieces)
    assert len(application.threads) == 1  # a database connection belongs to its thread


def test_it_sends_pieces_of_a_known_length_as_they_are(rig: Rig, application: Application) -> None:
    application.pieces, application.headers = [b"ab", b"cd"], [("Content-Length", "4"), ("X-A", "1")]
    answer = rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.body, answer.headers["x-a"], "transfer-encoding" in answer.headers) == (
        b"abcd",
        "1",
        False,
    )


@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]])
def test_it_sends_no_body_to_head(rig: Rig, application: Application, headers: list[tuple[str, str]]) -> None:
    application.headers = headers
    data = rig.client().send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").rest()
    assert data.startswith(b"HTTP/1.1 201 Created\r\n")
    assert data.endswith(b"\r\n\r\n")


def test_it_stops_when_nobody_reads(rig: Rig, application: Application) -> None:
    application.pieces = [b"x" * 1_000_000] * 200
    client = rig.client().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.socket.recv(1)
    client.socket.close()
    assert application.closed.wait(PATIENCE_S)


def test_a_failure_in_the_middle_does_not_pass_for_the_end(rig: Rig, application: Application) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        raise ValueError

    application.pieces = pieces()  # type: ignore[assignment]
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
