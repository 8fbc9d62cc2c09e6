"""The data plane in front of Django: routing, keys, limits, probes. Without Django's request cycle and DRF.

Thousands of routers poll. A Django view costs 20 to 100 times as much as answering them from memory. The gateway
answers /router/v1, OFREP evaluations and probes itself, and passes all other requests on to Django.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from prometheus_client import REGISTRY

from controlplane.access.keyring import Keyring
from controlplane.core import clock, strictjson
from controlplane.core.errors import NotFound, PointsmanError, Unauthenticated, Unavailable
from controlplane.server import guards
from controlplane.server.bodies import Bodies
from controlplane.server.health import FiguresThread, Health
from controlplane.server.messages import Answer
from controlplane.server.metrics import ProcessFigures
from controlplane.web.replies import Reply, Request, json_reply, parameters, problem
from policies_app.fleet.buffer import FleetBuffer
from policies_app.fleet.writer import FleetWriter
from policies_app.snapshots import ofrep
from policies_app.snapshots.ofrep import RemoteEvaluation
from policies_app.snapshots.plano import RoutingPolicies
from policies_app.snapshots.serving import SnapshotService
from policies_app.snapshots.watcher import Watcher
from rollout_app.outcomes.ingest import READ_INLINE, Ingest
from rollout_app.outcomes.sampled_inputs import SampledInputs

log = logging.getLogger(__name__)

Handler = Callable[[Request, bytes], Answer]
Behind = Callable[[Request], Coroutine[Any, Any, Reply]]
PREFIX = "/router/v1/"
START_S = 10.0  # how long a process waits for its first read of the database before it serves


class Endpoint(NamedTuple):
    method: str
    handler: Handler
    body_limit: int  # bytes; 0: the body is not read
    answered: Counter[int]  # responses by status since the process started


class Gateway:
    """The gateway, one per process. `controlplane.server.lifespan` calls `start` and `stop`."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._keyring = Keyring()
        self._fleet = FleetBuffer()
        self._bodies = Bodies()
        self.snapshots = SnapshotService(self._keyring, self._fleet)
        self.ingest = Ingest(self.snapshots.cache, self._fleet)
        self._samples = SampledInputs(self.snapshots.cache)
        policies = RoutingPolicies(self.snapshots.environment_of, self._fleet)
        self._endpoints = {
            PREFIX + "snapshot": Endpoint("GET", self.snapshots.poll, 0, Counter()),
            PREFIX + "routing-policy": Endpoint("GET", policies.answer, 0, Counter()),
            PREFIX + "acks": Endpoint("POST", self.snapshots.ack, 16 * 1024, Counter()),
            PREFIX + "outcomes": Endpoint("POST", self.ingest.outcomes, 1024 * 1024, Counter()),
            PREFIX + "events": Endpoint("POST", self.ingest.events, 1024 * 1024, Counter()),
            PREFIX + "feedback": Endpoint("POST", self.ingest.feedback, 1024 * 1024, Counter()),
            PREFIX + "samples": Endpoint("POST", self._samples.receive, 256 * 1024, Counter()),
        }
        remote = RemoteEvaluation(self.snapshots.environment_of)
        self._remote = Endpoint("POST", remote.evaluate, 64 * 1024, Counter())
        self._elsewhere: Counter[int] = Counter()  # responses for unknown paths under the prefix
        self._watcher = Watcher(self.snapshots, self._keyring)
        self._fleet_writer = FleetWriter(self._fleet)
        self.health = Health(
            {
                "watcher": self._watcher.polled_ago,
                "keys": self._watcher.keys_read_ago,
                "fleet_writer": self._fleet_writer.age,
                "ingest": self.ingest.age,
            }
        )
        self._figures_thread = FiguresThread()
        self._probes: dict[str, Callable[[Request], Reply]] = {
            "/healthz": lambda request: self.health.alive(),
            "/readyz": self._readiness,
            "/metrics": self._metrics,
        }
        self._figures: ProcessFigures | None = None

    # --- start, stop -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the threads that read the database. Return after everything was read once, or after ten seconds."""
        self._watcher.start_on(asyncio.get_running_loop())
        self._fleet_writer.start()
        self.ingest.start()
        self.health.start()
        self._figures_thread.start()
        answered = {
            path.removeprefix(PREFIX): endpoint.answered for path, endpoint in self._endpoints.items()
        }
        answered["none"] = self._elsewhere
        answered["ofrep"] = self._remote.answered
        self._figures = ProcessFigures(answered, self.snapshots, self.ingest, self._fleet, self._watcher)
        REGISTRY.register(self._figures)
        deadline = asyncio.get_running_loop().time() + START_S
        while not self._watcher.polled or clock.running.now() is None:
            if asyncio.get_running_loop().time() > deadline:
                log.warning("the database has not answered yet; routers get 503 until it does")
                return
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)  # the results are handed over in the loop's next turn

    def drain(self) -> None:
        """Report not ready and answer the long polls. Requests are still served."""
        self.snapshots.drain()

    async def stop(self) -> None:
        """Commit received reports, write the fleet, and end the threads."""
        self.drain()
        if self._figures is not None:
            REGISTRY.unregister(self._figures)
        parts = (
            self.ingest,
            self._samples,
            self._watcher,
            self._fleet_writer,
            self.health,
            self._figures_thread,
        )
        for part in parts:
            await asyncio.to_thread(part.stop)

    @property
    def ready(self) -> bool:
        """Whether everything was read once and the process is not shutting down."""
        return self._watcher.polled and not self.snapshots.draining

    # --- requests -------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """Return the reply, or a coroutine that produces it. Neither raises, except `ConnectionResetError` by the
        client."""
        path = request.path
        endpoint = self._endpoints.get(path)
        if endpoint is None and path.startswith(ofrep.PREFIX):
            endpoint = self._remote
        if endpoint is None and not path.startswith(PREFIX):
            return self._probe(request) or self._guarded(self._behind(request), request)
        answered = endpoint.answered if endpoint else self._elsewhere
        try:
            answer = self._answer(endpoint, request)
        except Exception as error:
            answer = _refused(error, request)
        if not isinstance(answer, Reply):
            return self._guarded(answer, request, answered)
        answered[answer.status] += 1
        return answer

    async def _guarded(
        self, answer: Coroutine[Any, Any, Reply], request: Request, answered: Counter[int] | None = None
    ) -> Reply:
        try:
            reply = await answer
        except ConnectionResetError:
            raise  # the client hung up before sending its whole body
        except Exception as error:
            reply = _refused(error, request)
        if answered is not None:
            answered[reply.status] += 1
        return reply

    def _probe(self, request: Request) -> Reply | None:
        """Answer a probe, or return None. Probes work for any host name, without TLS, and never wait."""
        answer = self._probes.get(request.path)
        if answer is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return _wrong_method("GET")
        try:
            return answer(request)
        except Exception as error:
            return _refused(error, request)

    def _metrics(self, request: Request) -> Reply:
        guards.require_scraper(request)
        return self.health.metrics()

    def _readiness(self, request: Request) -> Reply:
        if not self.ready:
            raise Unavailable("This process is starting or ending.", retry_after=1)
        excluded = {value for name, value in parameters(request.query) if name == "exclude"}
        return self.health.readiness(excluded)

    def _answer(self, endpoint: Endpoint | None, request: Request) -> Answer:
        guards.require_host(request.headers.get(b"host", b""))
        authorization = request.headers.get(b"authorization")
        try:
            request.caller = self._keyring.router(authorization)
        except Unauthenticated:
            if not self._keyring.missing(authorization):
                raise
            return self._with_new_key(authorization, endpoint, request)
        return self._handle(endpoint, request)

    async def _with_new_key(
        self, authorization: bytes | None, endpoint: Endpoint | None, request: Request
    ) -> Reply:
        """Answer a request whose key was created after the keys were last read."""
        if not self._watcher.polled:
            raise Unavailable("The keys have not been read yet.", retry_after=1)
        await self._watcher.keys_read()
        request.caller = self._keyring.router(authorization)
        answer = self._handle(endpoint, request)
        return answer if isinstance(answer, Reply) else await answer

    def _handle(self, endpoint: Endpoint | None, request: Request) -> Answer:
        if endpoint is None:
            raise NotFound(
                f"There is nothing at {request.path}; the router protocol starts at {PREFIX}snapshot."
            )
        if request.method != endpoint.method and (request.method, endpoint.method) != ("HEAD", "GET"):
            return _wrong_method(endpoint.method)
        return self._with_body(endpoint, request) if endpoint.body_limit else endpoint.handler(request, b"")

    async def _with_body(self, endpoint: Endpoint, request: Request) -> Reply:
        body = await self._bodies.read(request, endpoint.body_limit, request.caller.pk)
        if len(body) > READ_INLINE:
            await asyncio.to_thread(strictjson.refuse_duplicate_keys, body)
        else:
            strictjson.refuse_duplicate_keys(body)
        answer = endpoint.handler(request, body)
        return answer if isinstance(answer, Reply) else await answer


def _refused(error: Exception, request: Request) -> Reply:
    if isinstance(error, PointsmanError):
        return problem(error)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem(PointsmanError("Something went wrong here; the error is in the server's log."))


def _wrong_method(allowed: str) -> Reply:
    document = {
        "type": "urn:pointsman:problem:method_not_allowed",
        "title": "Method not allowed",
        "status": 405,
        "code": "method_not_allowed",
        "detail": f"Only {allowed} is allowed here.",
    }
    return json_reply(405, document, (b"allow", allowed.encode()), content_type=b"application/problem+json")
