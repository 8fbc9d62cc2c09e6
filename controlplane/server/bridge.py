"""Runs Django's WSGI application behind the gateway, in its own threads.

A thread only runs Django: the body has been read before, and the whole response is handed to the event loop, so that no
thread ever waits for a client (docs/decisions/0010). A large response goes through a temporary file.
"""

import asyncio
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from tempfile import TemporaryFile
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controlplane.core.errors import InvalidInput, PointsmanError, Unavailable
from controlplane.server import proxies
from controlplane.server.bodies import Bodies
from controlplane.web.limits import counted_address
from controlplane.web.replies import Header, Reply, Request, problem

Environ = dict[str, Any]
WsgiApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

THREADS = 8  # concurrent requests of people and scripts; the others queue
# Sign-ins hash passwords, two at a time in a process. They have their own threads, so that only sign-ins wait for
# them.
SIGN_IN_THREADS = 2
SIGN_INS = ("/console/login/", "/console/account/", "/console/invitation/")
MOST_WAITING = 256  # queued requests; further ones get a 503
BODY_LIMIT = 4 * 1024 * 1024  # bytes; Django's own limits are lower
MOST_HELD = 128 * 1024 * 1024  # bytes of the bodies of running and queued requests
IN_MEMORY = 1024 * 1024  # bytes of a response; larger ones go to a temporary file
ANSWER_LIMIT = 2 * 1024 * 1024 * 1024  # bytes


class Bridge(Collector):
    """Answers the gateway's requests with a WSGI application."""

    def __init__(self, application: WsgiApplication, threads: int = THREADS) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._signing_in = ThreadPoolExecutor(SIGN_IN_THREADS, thread_name_prefix="sign-in")
        self._most = threads + MOST_WAITING
        self._running = 0  # requests running or waiting for a thread
        self._held = 0  # bytes of their bodies
        self._bodies = Bodies()

    async def __call__(self, request: Request) -> Reply:
        """Answer a request. Raises `ConnectionResetError` if the client hangs up before it has sent the whole
        request."""
        try:
            sender = counted_address(proxies.client_address(request))
            body = await self._bodies.read(request, BODY_LIMIT, sender)
            if self._running >= self._most or self._held + len(body) > MOST_HELD:
                raise Unavailable("Too many requests are waiting for the console and the API.", retry_after=2)
        except PointsmanError as error:
            return problem(error)
        self._running += 1
        self._held += len(body)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool(request), self._run, environ(request, body))
        finally:
            self._running -= 1
            self._held -= len(body)

    def _pool(self, request: Request) -> ThreadPoolExecutor:
        hashes = request.method == "POST" and request.path.startswith(SIGN_INS)
        return self._signing_in if hashes else self._threads

    def collect(self) -> Iterable[Metric]:
        """Report to Prometheus the requests running or waiting, and the number of threads."""
        for name, text, value in (
            ("requests", "Requests to the console and the API, running or waiting", self._running),
            ("threads", "How many of them can run at once", self._most - MOST_WAITING),
        ):
            gauge = GaugeMetricFamily(f"pointsman_pool_{name}", text, labels=["pid"])
            gauge.add_metric([str(os.getpid())], value)
            yield gauge

    def describe(self) -> Iterable[Metric]:
        return []  # only we use these names

    def close(self) -> None:
        """Wait for running requests and end the threads."""
        self._threads.shutdown()
        self._signing_in.shutdown()

    def _run(self, environ: Environ) -> Reply:
        started: list[tuple[int, list[Header]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            started.append((int(status[:3]), encoded))

        response = self._application(environ, start_response)
        try:
            pieces = iter(response)
            # An application may call start_response only when it yields its first piece.
            first = next(pieces, b"")
            status, headers = started[-1]
            if environ["REQUEST_METHOD"] == "HEAD":
                return Reply(status, headers)
            return _whole(status, headers, chain((first,), pieces))
        finally:
            if hasattr(response, "close"):
                response.close()


def _whole(status: int, headers: list[Header], pieces: Iterator[bytes]) -> Reply:
    """Return the response with its whole body and a Content-Length, so that a truncated one is noticed."""
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size > IN_MEMORY:
            return _spooled(status, headers, chain(kept, pieces))
    return Reply(status, _sized(status, headers, size), b"".join(kept))


def _spooled(status: int, headers: list[Header], pieces: Iterable[bytes]) -> Reply:
    file = TemporaryFile()  # noqa: SIM115 — the sender closes it
    try:
        for piece in pieces:
            file.write(piece)
            if file.tell() > ANSWER_LIMIT:
                raise InvalidInput(
                    f"The response is larger than {ANSWER_LIMIT >> 30} GiB; request less data."
                )
    except BaseException as error:
        file.close()
        if isinstance(error, PointsmanError):
            return problem(error)
        raise
    size = file.tell()
    file.seek(0)
    return Reply(status, _sized(status, headers, size), file=file)


def _sized(status: int, headers: list[Header], size: int) -> list[Header]:
    if status in (204, 304) or any(name == b"content-length" for name, _ in headers):
        return headers
    return [*headers, (b"content-length", b"%d" % size)]


def environ(request: Request, body: bytes) -> Environ:
    """Return the WSGI environment (PEP 3333) of a request whose body has been read."""
    scope = request.scope
    host, port = scope.get("server") or ("localhost", 80)
    values: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode("utf-8").decode("latin-1"),
        "QUERY_STRING": request.query.decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 80),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if address := proxies.client_address(request):
        values["REMOTE_ADDR"] = address
    believed = proxies.comes_from_proxy(request)
    for raw_name, raw_value in request.headers.items():
        name = raw_name.decode("latin-1")
        if "_" in name:
            continue  # `X_Forwarded_For` would be read as `X-Forwarded-For`
        if not believed and proxies.is_proxys(raw_name):
            continue  # any client can send them
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        values[key] = raw_value.decode("latin-1")
    values["CONTENT_LENGTH"] = str(len(body))
    return values
