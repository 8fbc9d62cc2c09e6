"""The data plane's ASGI door, in front of Django: routes, keys, limits. No Django request cycle, no DRF.

Routers poll by the thousand; a Django view costs 20 to 100 times what it takes to answer them from memory.
What is not under /router/v1 goes on to the application behind.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from prometheus_client import REGISTRY

from controlplane.access.keyring import Caller, Keyring
from controlplane.errors import NotFound, PointsmanError, Unauthenticated, Unavailable
from controlplane.gateway.bodies import Bodies
from controlplane.gateway.figures import ProcessFigures
from controlplane.replies import Receive, Reply, Request, Send, json_reply, problem
from policies_app.fleet import Fleet, Scribe
from policies_app.serving import Serving
from policies_app.watcher import Watcher
from rollout_app.ingest import Ingest

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[Request, bytes], Awaitable[Reply]]
PREFIX = "/router/v1/"
CHUNK = 256 * 1024  # bytes of a large answer handed over at once


class Route(NamedTuple):
    method: str
    handler: Handler
    body_limit: int  # bytes
    answered: Counter[int]  # answers by status, since the process began


class Gateway:
    """One per process. `start` and `stop` are called by the lifespan, in `controlplane.asgi`."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind
        self._keyring = Keyring()
        self._fleet = Fleet()
        self._bodies = Bodies()
        self.serving = Serving(self._keyring, self._fleet)
        self.ingest = Ingest(self.serving.boards)
        self._routes = {
            PREFIX + "snapshot": Route("GET", self.serving.snapshot, 0, Counter()),
            PREFIX + "acks": Route("POST", self.serving.ack, 16 * 1024, Counter()),
            PREFIX + "outcomes": Route("POST", self.ingest.outcomes, 1024 * 1024, Counter()),
            PREFIX + "events": Route("POST", self.ingest.events, 1024 * 1024, Counter()),
            PREFIX + "feedback": Route("POST", self.ingest.feedback, 1024 * 1024, Counter()),
        }
        self._elsewhere: Counter[int] = Counter()  # answers at paths under the prefix that lead nowhere
        self._watcher: Watcher | None = None
        self._scribe: Scribe | None = None
        self._figures: ProcessFigures | None = None

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look at the database; returns when everything was read once, or after ten seconds."""
        self._watcher = Watcher(self.serving, self._keyring, asyncio.get_running_loop())
        self._scribe = Scribe(self._fleet)
        self._watcher.start()
        self._scribe.start()
        self.ingest.start()
        doors = {path.removeprefix(PREFIX): route.answered for path, route in self._routes.items()}
        doors["none"] = self._elsewhere
        self._figures = ProcessFigures(doors, self.serving, self.ingest, self._fleet, self._watcher)
        REGISTRY.register(self._figures)
        for _ in range(500):
            if self._watcher.looked:
                return
            await asyncio.sleep(0.02)
        log.warning("the database has not answered yet; routers get 503 until it does")

    def drain(self) -> None:
        """Readiness goes down, long polls are answered; requests are still served."""
        self.serving.drain()

    async def stop(self) -> None:
        """Commit what was taken in, write the fleet, end the threads."""
        self.drain()
        if self._figures is not None:
            REGISTRY.unregister(self._figures)
        for part in (self.ingest, self._watcher, self._scribe):
            if part is not None:
                await asyncio.to_thread(part.stop)

    @property
    def ready(self) -> bool:
        return self._watcher is not None and self._watcher.looked and not self.serving.draining

    # --- requests -------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        route = self._routes.get(path)
        if route is None and not path.startswith(PREFIX):
            if path == "/readyz" and not self.ready:
                await _send(problem(Unavailable("This process is starting or ending.", retry_after=1)), send)
            else:
                await self._behind(scope, receive, send)
            return
        try:
            reply = await self._reply(route, scope, receive)
        except PointsmanError as error:
            reply = problem(error)
        except ConnectionResetError:
            return  # the router hung up before it had sent its body
        except Exception:
            log.exception("%s %s failed", scope["method"], path)
            reply = problem(PointsmanError("Something went wrong here; it was written to the server's log."))
        (route.answered if route else self._elsewhere)[reply.status] += 1
        await _send(reply, send)

    async def _reply(self, route: Route | None, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        try:
            caller = self._keyring.router(headers.get(b"authorization"))
        except Unauthenticated:
            caller = await self._issued_since(headers.get(b"authorization"))
        if route is None:
            raise NotFound(
                f"There is nothing at {scope['path']}; the router protocol is at {PREFIX}snapshot."
            )
        if scope["method"] != route.method:
            return _wrong_method(route.method)
        body = await self._bodies.read(receive, headers, route.body_limit) if route.body_limit else b""
        return await route.handler(Request(caller, headers, scope["query_string"], receive), body)

    async def _issued_since(self, authorization: bytes | None) -> Caller:
        """A key that is younger than the last read of the keys. Raises as `Keyring.router` does."""
        if self._watcher is not None and self._keyring.missing(authorization):
            if not self._watcher.looked:
                raise Unavailable("The keys have not been read yet.", retry_after=1)
            await self._watcher.keys_read()
        return self._keyring.router(authorization)


def _wrong_method(allowed: str) -> Reply:
    document = {
        "type": "urn:pointsman:problem:method_not_allowed",
        "title": "Method not allowed",
        "status": 405,
        "code": "method_not_allowed",
        "detail": f"Only {allowed} is understood here.",
    }
    return json_reply(405, document, (b"allow", allowed.encode()), content_type=b"application/problem+json")


async def _send(reply: Reply, send: Send) -> None:
    await send(reply.start)
    if len(reply.body) <= CHUNK:
        await send(reply.end)
        return
    # Piece by piece, so that a slow reader of a large snapshot holds a piece and not a copy of it all.
    view = memoryview(reply.body)
    for start in range(0, len(view), CHUNK):
        more = start + CHUNK < len(view)
        piece = bytes(view[start : start + CHUNK])
        await send({"type": "http.response.body", "body": piece, "more_body": more})
