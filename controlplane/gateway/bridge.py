"""Runs Django's WSGI application under the ASGI server, in threads of its own.

Django's ASGI handler starts an event loop's worth of machinery for each synchronous view and its middleware:
through here a bare view costs a third of that, and a page, which is mostly its own queries and template, a tenth
less (benchmarks/bridge.py). And the console's work never sits on the event loop that answers routers.
"""

import asyncio
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controlplane.errors import PointsmanError
from controlplane.gateway.bodies import Bodies
from controlplane.replies import Receive, Send, problem

Environ = dict[str, Any]
WsgiApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
THREADS = 8  # requests of people and scripts at once; the others queue
BODY_LIMIT = 4 * 1024 * 1024  # bytes; Django's own limits lie below


class Bridge:
    """An ASGI application that answers with a WSGI one."""

    def __init__(self, application: WsgiApplication, threads: int = THREADS) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._bodies = Bodies()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            body = await self._bodies.read(receive, _declared(scope), BODY_LIMIT)
        except ConnectionResetError:
            return
        except PointsmanError as error:
            reply = problem(error)
            await send(reply.start)
            await send(reply.end)
            return
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._run, environ(scope, body), send, loop)

    def close(self) -> None:
        """Wait for what runs."""
        self._threads.shutdown()

    def _run(self, environ: Environ, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        def say(message: dict[str, Any]) -> None:
            asyncio.run_coroutine_threadsafe(_as_coroutine(send, message), loop).result()

        started: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            started.update(
                type="http.response.start",
                status=int(status[:3]),
                headers=[
                    (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
                ],
            )

        response = self._application(environ, start_response)
        try:
            _answer(response, started, say)
        finally:
            if hasattr(response, "close"):
                response.close()


def _answer(
    response: Iterable[bytes], started: dict[str, Any], say: Callable[[dict[str, Any]], None]
) -> None:
    """Send a response's pieces as they come; a single one, the usual case, goes out in one message."""
    pieces = iter(response)
    piece: bytes | None = next(pieces, b"")
    say(started)
    while piece is not None:
        following = next(pieces, None)
        say({"type": "http.response.body", "body": bytes(piece), "more_body": following is not None})
        piece = following


async def _as_coroutine(send: Send, message: dict[str, Any]) -> None:
    await send(message)


def _declared(scope: dict[str, Any]) -> dict[bytes, bytes]:
    return {name: value for name, value in scope["headers"] if name == b"content-length"}


def environ(scope: dict[str, Any], body: bytes) -> Environ:
    """The WSGI environment (PEP 3333) of an ASGI request whose body was read."""
    server = scope.get("server") or ("localhost", 80)
    values: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf-8").decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope.get("client"):
        values["REMOTE_ADDR"] = scope["client"][0]
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "_" in name:
            continue  # `X_Forwarded_For` would pass for `X-Forwarded-For`
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        values[key] = f"{values[key]},{value}" if key in values and key != "HTTP_COOKIE" else value
    values["CONTENT_LENGTH"] = str(len(body))
    return values
