"""Runs Django's WSGI application behind the gateway, in threads of its own.

Django's ASGI handler starts an event loop's worth of machinery for each synchronous view and its middleware:
through here a bare view costs a third of that, and a page, which is mostly its own queries and template, a tenth
less (benchmarks/bridge.py). And the console's work never sits on the event loop that answers routers.
"""

import asyncio
import io
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controlplane.core.errors import PointsmanError
from controlplane.server.bodies import Bodies
from controlplane.web.replies import Reply, Request, is_sized, problem

Environ = dict[str, Any]
WsgiApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
THREADS = 8  # requests of people and scripts at once; the others queue
BODY_LIMIT = 4 * 1024 * 1024  # bytes; Django's own limits lie below


class Bridge:
    """Answers the gateway's requests with a WSGI application."""

    def __init__(self, application: WsgiApplication, threads: int = THREADS) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._bodies = Bodies()

    async def __call__(self, request: Request) -> Reply | None:
        """The answer; None when it was sent in pieces. Raises `ConnectionResetError`."""
        try:
            body = await self._bodies.read(request, BODY_LIMIT)
        except PointsmanError as error:
            return problem(error)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._run, request, body, loop)

    def close(self) -> None:
        """Wait for what runs."""
        self._threads.shutdown()

    def _run(self, request: Request, body: bytes, loop: asyncio.AbstractEventLoop) -> Reply | None:
        started: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            started.update(status=int(status[:3]), headers=encoded)

        def wait_for(step: Coroutine[Any, Any, None]) -> None:
            asyncio.run_coroutine_threadsafe(step, loop).result()

        response = self._application(environ(request, body), start_response)
        try:
            pieces = iter(response)
            first, second = next(pieces, b""), next(pieces, None)
            status, headers = started["status"], started["headers"]
            if second is None and (request.method != "HEAD" or is_sized(status, headers)):
                return Reply(status, headers, bytes(first))
            wait_for(request.line.begin(status, headers))
            if request.method != "HEAD":
                for piece in _all(first, second, pieces):
                    wait_for(request.line.write(bytes(piece)))
            return None
        finally:
            if hasattr(response, "close"):
                response.close()


def _all(first: bytes, second: bytes | None, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    if second is not None:
        yield second
    yield from others


def environ(request: Request, body: bytes) -> Environ:
    """The WSGI environment (PEP 3333) of a request whose body was read."""
    client, server, scheme = request.line.address()
    values: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode("utf-8").decode("latin-1"),
        "QUERY_STRING": request.query.decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if client:
        values["REMOTE_ADDR"] = client
    for raw_name, raw_value in request.headers.items():
        name = raw_name.decode("latin-1")
        if "_" in name:
            continue  # `X_Forwarded_For` would pass for `X-Forwarded-For`
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        values[key] = raw_value.decode("latin-1")
    values["CONTENT_LENGTH"] = str(len(body))
    return values
