"""The data plane in front of Django: routes, keys, limits. No Django request cycle, no DRF.

Routers poll by the thousand; a Django view costs 20 to 100 times what it takes to answer them from memory.
What is not under /router/v1 goes on to what is behind. Requests come by a door, of which there are two:
`controlplane.server.http1`, which `manage.py serve` has, and `controlplane.asgi` for any other server.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from prometheus_client import REGISTRY

from controlplane.access.keyring import Caller, Keyring
from controlplane.core.errors import NotFound, PointsmanError, Unauthenticated, Unavailable
from controlplane.server.bodies import Bodies
from controlplane.server.metrics import ProcessFigures
from controlplane.web.replies import Reply, Request, json_reply, problem
from policies_app.fleet.buffer import FleetBuffer
from policies_app.fleet.writer import FleetWriter
from policies_app.snapshots.serving import Serving
from policies_app.snapshots.watcher import Watcher
from rollout_app.outcomes.ingest import Ingest

log = logging.getLogger(__name__)

# What can be told at once is: a task of its own would cost a third of a poll's time.
Answer = Reply | Coroutine[Any, Any, Reply]
# None: it was given piece by piece, over the request's line.
Anything = Reply | Coroutine[Any, Any, Reply | None]
Handler = Callable[[Request, bytes], Answer]
Behind = Callable[[Request], Coroutine[Any, Any, Reply | None]]
PREFIX = "/router/v1/"


class Route(NamedTuple):
    method: str
    handler: Handler
    body_limit: int  # bytes
    answered: Counter[int]  # answers by status, since the process began


class Gateway:
    """One per process. `start` and `stop` are called by `controlplane.server.lifespan`."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._keyring = Keyring()
        self._fleet = FleetBuffer()
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
        self._fleet_writer: FleetWriter | None = None
        self._figures: ProcessFigures | None = None

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look at the database; returns when everything was read once, or after ten seconds."""
        self._watcher = Watcher(self.serving, self._keyring, asyncio.get_running_loop())
        self._fleet_writer = FleetWriter(self._fleet)
        self._watcher.start()
        self._fleet_writer.start()
        self.ingest.start()
        doors = {path.removeprefix(PREFIX): route.answered for path, route in self._routes.items()}
        doors["none"] = self._elsewhere
        self._figures = ProcessFigures(doors, self.serving, self.ingest, self._fleet, self._watcher)
        REGISTRY.register(self._figures)
        for _ in range(500):
            if self._watcher.looked:
                await asyncio.sleep(0)  # what it found is handed over in the loop's next turn
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
        for part in (self.ingest, self._watcher, self._fleet_writer):
            if part is not None:
                await asyncio.to_thread(part.stop)

    @property
    def ready(self) -> bool:
        return self._watcher is not None and self._watcher.looked and not self.serving.draining

    # --- requests -------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Anything:
        """The answer, or what to await for it. Neither raises, but for `ConnectionResetError` of the line."""
        path = request.path
        route = self._routes.get(path)
        if route is None and not path.startswith(PREFIX):
            if path == "/readyz" and not self.ready:
                return problem(Unavailable("This process is starting or ending.", retry_after=1))
            return self._behind(request)
        try:
            answer = self._answer(route, request)
        except Exception as error:
            answer = _refused(error, request)
        if not isinstance(answer, Reply):
            return self._later(answer, route, request)
        (route.answered if route else self._elsewhere)[answer.status] += 1
        return answer

    async def _later(
        self, answer: Coroutine[Any, Any, Reply], route: Route | None, request: Request
    ) -> Reply:
        try:
            reply = await answer
        except ConnectionResetError:
            raise  # the router hung up before it had sent its body
        except Exception as error:
            reply = _refused(error, request)
        (route.answered if route else self._elsewhere)[reply.status] += 1
        return reply

    def _answer(self, route: Route | None, request: Request) -> Answer:
        authorization = request.headers.get(b"authorization")
        try:
            # The same request again, so the same key; it may have died since.
            known = request.verified
            caller = self._keyring.still_good(known) if known else self._keyring.router(authorization)
        except Unauthenticated:
            if self._watcher is None or not self._keyring.missing(authorization):
                raise
            return self._by_new_key(self._watcher, authorization, route, request)
        return self._by(caller, route, request)

    async def _by_new_key(
        self, watcher: Watcher, authorization: bytes | None, route: Route | None, request: Request
    ) -> Reply:
        """For a key that is younger than the last read of the keys."""
        if not watcher.looked:
            raise Unavailable("The keys have not been read yet.", retry_after=1)
        await watcher.keys_read()
        answer = self._by(self._keyring.router(authorization), route, request)
        return answer if isinstance(answer, Reply) else await answer

    def _by(self, caller: Caller, route: Route | None, request: Request) -> Answer:
        request.verified = caller
        if route is None:
            raise NotFound(f"There is nothing at {request.path}; the router protocol is at {PREFIX}snapshot.")
        if request.method != route.method and (request.method, route.method) != ("HEAD", "GET"):
            return _wrong_method(route.method)
        return self._with_body(route, request) if route.body_limit else route.handler(request, b"")

    async def _with_body(self, route: Route, request: Request) -> Reply:
        answer = route.handler(request, await self._bodies.read(request, route.body_limit))
        return answer if isinstance(answer, Reply) else await answer


def _refused(error: Exception, request: Request) -> Reply:
    if isinstance(error, PointsmanError):
        return problem(error)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem(PointsmanError("Something went wrong here; it was written to the server's log."))


def _wrong_method(allowed: str) -> Reply:
    document = {
        "type": "urn:pointsman:problem:method_not_allowed",
        "title": "Method not allowed",
        "status": 405,
        "code": "method_not_allowed",
        "detail": f"Only {allowed} is understood here.",
    }
    return json_reply(405, document, (b"allow", allowed.encode()), content_type=b"application/problem+json")
