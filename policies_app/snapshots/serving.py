"""GET /router/v1/snapshot and POST /router/v1/acks, answered from memory without a query.

`cache` holds each environment as it is served now. The watcher's thread reads the next revision and passes it to
`replace`. Everything else here runs on the event loop, so nothing changes between two awaits.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from django.conf import settings

from controlplane.access.keyring import Caller, Keyring
from controlplane.core.errors import InvalidInput, NotFound, Restored, Unavailable
from controlplane.web.replies import Reply, Request, parameters
from policies_app.fleet.acks import read_ack
from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots import build
from policies_app.snapshots.cache import (
    Asked,
    CachedEnvironment,
    NotModified,
    SnapshotBody,
    SnapshotCache,
    SnapshotQuery,
)

T = TypeVar("T")

LONGEST_WAIT_S = 30
WOKEN_AT_ONCE = 32  # waiters per turn of the event loop, so that other requests run in between
BUILT_INLINE = 128 * 1024  # bytes; up to this size a thread would cost more than it saves
KEPT_ANSWERS = 1_024
SHORT = 1_024  # bytes of request headers and query; for longer ones nothing is cached
KEPT_BYTES = 256 * 1024 * 1024  # limit for one environment's bodies
_TAG = re.compile(rb'(?:W/)?("[^"]*")')
# Suffixes that compressing proxies append to a tag inside its quotes: Apache `-gzip`, Jetty `--gzip`.
_COMPRESSED = re.compile(rb'-{1,2}(?:gzip|br|zstd|deflate)"$')
_OURS = re.compile(rb'"([^".]{1,36})\.(\d{1,18})\.[0-9a-f]{16}"')  # 36: no longer than the epoch's column
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class IfNoneMatch(NamedTuple):
    """A parsed If-None-Match: its tags without `W/`, and the newest revision named by one of our own."""

    tags: tuple[bytes, ...]
    anything: bool
    epoch: str
    revision: int


class SnapshotService:
    """The snapshot and ack endpoints of one process."""

    def __init__(self, keyring: Keyring, fleet: FleetBuffer) -> None:
        self.cache: SnapshotCache = {}
        self.withheld: set[str] = set()  # environments of a database restored from a backup
        self.held: Counter[str] = Counter()  # long polls by key id
        self.built = 0  # bodies built since the process started
        self.draining = False
        self._keyring = keyring
        self._fleet = fleet
        self._tasks: set[asyncio.Task[None]] = set()

    # --- called by the watcher ------------------------------------------------------------------------

    def replace(self, name: str, environment: CachedEnvironment | None) -> None:
        """Serve the next revision (None: the environment is gone) and wake the long polls waiting for it."""
        old = self.cache.pop(name, None)
        self.withheld.discard(name)
        if environment is not None:
            self.cache[name] = environment
        if old is not None:
            self._wake(old)

    def withhold(self, name: str) -> None:
        """Answer 503 for an environment whose state in the database is older than what was served before."""
        self.replace(name, None)
        self.withheld.add(name)

    def drain(self) -> None:
        """Answer every long poll now and hold no more, because the process is about to shut down."""
        self.draining = True
        for environment in self.cache.values():
            self._wake(environment)

    def _wake(self, environment: CachedEnvironment) -> None:
        task = asyncio.get_running_loop().create_task(_release(list(environment.waiters)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the endpoints --------------------------------------------------------------------------------

    def poll(self, request: Request, body: bytes = b"") -> Reply | Coroutine[Any, Any, Reply]:
        """Return the reply if it is ready; otherwise a coroutine that builds a body or waits for a newer one."""
        caller, headers = request.caller, request.headers
        environment = self.environment_of(caller)
        tags = headers.get(b"if-none-match")
        wait = _wait(headers[b"prefer"]) if b"prefer" in headers else 0
        if tags is not None and not wait:
            known = environment.not_modified.get((tags, request.query, caller.workloads))
            if known is not None:
                self._heard(request, environment, known.epoch, known.revision)
                return known.reply
        condition = _condition(tags) if tags is not None else None
        query = self._query(request, environment, condition)
        epoch, revision = (condition.epoch, condition.revision) if condition else ("", 0)
        self._heard(request, environment, epoch, revision)
        if wait and condition is not None:
            return self._hold(request, query, condition, wait)
        encoding = _encoding(headers.get(b"accept-encoding", b"")[:SHORT])
        reply = _known(environment, query, condition, encoding)
        if reply is None:
            return self._reply(environment, query, condition, encoding)
        if reply.status == 304 and tags is not None and len(tags) + len(request.query) <= SHORT:
            asked = (tags, request.query, caller.workloads)
            _keep_not_modified(environment, asked, NotModified(epoch, revision, reply))
        return reply

    def ack(self, request: Request, body: bytes) -> Reply:
        ack = read_ack(body)
        header = self.environment_of(request.caller).header
        instance = ack.router or request.instance()
        if ack.state == "leaving":
            self._fleet.left(header.pk, instance, request.client())
        elif ack.state == "applied":
            epoch, revision = ack.epoch or header.epoch, ack.revision or 0
            self._fleet.acked(header.pk, instance, request.client(), epoch, revision)
        elif not request.caller.may_report(ack.workload or ""):
            raise InvalidInput(f"This key may not report for the workload {ack.workload!r}.")
        else:
            self._fleet.refused(header.pk, instance, request.client(), header.revision, ack)
        return Reply(204, [])

    # --- internals -------------------------------------------------------------------------------------

    def environment_of(self, caller: Caller) -> CachedEnvironment:
        """Return what the key's environment serves now. Raises `Restored`, `Unavailable` and `NotFound`."""
        try:
            return self.cache[caller.environment]
        except KeyError:
            if caller.environment in self.withheld:
                raise Restored(
                    "The database was restored from a backup and is older than what routers have. They keep theirs.",
                    retry_after=30,
                ) from None
            if not self.cache:  # the database stopped answering between the keys and the environments
                raise Unavailable("The environments have not been read yet.", retry_after=1) from None
            raise NotFound(f"The environment {caller.environment!r} no longer exists.") from None

    def _heard(self, request: Request, environment: CachedEnvironment, epoch: str, revision: int) -> None:
        self._fleet.polled(environment.header.pk, request.instance(), request.client(), epoch, revision)
        self._fleet.used(request.caller.pk)

    def _query(
        self, request: Request, environment: CachedEnvironment, condition: IfNoneMatch | None
    ) -> SnapshotQuery:
        selection, since, asked = _asked_for(request.query)
        allowed = request.caller.workloads
        if allowed is not None:
            selection = allowed if selection is None else selection & allowed
        header = environment.header
        if since is not None and (since > header.revision or _other_epoch(condition, header.epoch)):
            since = None  # the changes since then are unknown, so send everything
        return SnapshotQuery(selection, since, asked)

    async def _hold(self, request: Request, query: SnapshotQuery, condition: IfNoneMatch, wait: int) -> Reply:
        """Answer as soon as there is something newer, or when the time is over."""
        caller, loop = request.caller, asyncio.get_running_loop()
        if self.held[caller.key_id] >= settings.MAX_WAITERS_PER_KEY:
            raise Unavailable(
                f"Key {caller.key_id} holds {settings.MAX_WAITERS_PER_KEY} long polls; poll without waiting.",
                retry_after=random.randint(5, 15),  # noqa: S311 — spreads the load; not security-relevant
            )
        deadline = loop.time() + wait
        encoding = _encoding(request.headers.get(b"accept-encoding", b"")[:SHORT])
        gone = loop.create_task(request.hung_up())
        self.held[caller.key_id] += 1
        try:
            while True:
                environment = self.environment_of(caller)
                # Recompute the query: a restore during the wait starts a new epoch, which needs a full response.
                query = self._query(request, environment, condition)
                reply = await self._reply(environment, query, condition, encoding)
                left = deadline - loop.time()
                if reply.status != 304 or left <= 0 or self.draining or gone.done():
                    return reply.with_headers((b"preference-applied", b"wait=%d" % wait))
                if self.cache.get(caller.environment) is environment:
                    await _replaced(environment, left, gone)
                caller = self._keyring.still_good(caller)
        finally:
            self.held[caller.key_id] -= 1
            gone.cancel()

    async def _reply(
        self,
        environment: CachedEnvironment,
        query: SnapshotQuery,
        condition: IfNoneMatch | None,
        encoding: str,
    ) -> Reply:
        if known := _known(environment, query, condition, encoding):
            return known
        body = environment.bodies.get(query)
        if body is None:
            body = await self._built(environment, query)
            if condition is not None and (condition.anything or body.etag in condition.tags):
                return body.unchanged
        return body.by_encoding.get(encoding) or await self._encoded(environment, query, body, encoding)

    async def _built(self, environment: CachedEnvironment, query: SnapshotQuery) -> SnapshotBody:
        return await _once(
            environment,
            query,
            environment.size(query),
            build=lambda: build.signed_body(environment, query),
            keep=lambda body: self._keep(environment, query, body),
        )

    def _keep(self, environment: CachedEnvironment, query: SnapshotQuery, body: SnapshotBody) -> None:
        """Cache a body, and evict the oldest ones beyond the limits."""
        self.built += 1
        bodies = environment.bodies
        bodies[query] = body
        environment.unchanged[body.etag] = body.unchanged
        while len(bodies) > KEPT_ANSWERS or (
            len(bodies) > 1 and sum(len(kept.plain) for kept in bodies.values()) > KEPT_BYTES
        ):
            bodies.pop(next(iter(bodies)))

    async def _encoded(
        self, environment: CachedEnvironment, query: SnapshotQuery, body: SnapshotBody, encoding: str
    ) -> Reply:
        return await _once(
            environment,
            (query, encoding),
            len(body.plain) if encoding else 0,
            build=lambda: build.encoded(body, encoding),
            keep=lambda reply: body.by_encoding.__setitem__(encoding, reply),
        )


def _known(
    environment: CachedEnvironment, query: SnapshotQuery, condition: IfNoneMatch | None, encoding: str
) -> Reply | None:
    """Return the reply if nothing needs to be built for it, otherwise None."""
    body = environment.bodies.get(query)
    if condition is not None:
        if body is not None and (condition.anything or body.etag in condition.tags):
            return body.unchanged
        if unchanged := _known_unchanged(environment, query, condition):
            return unchanged
    return body.by_encoding.get(encoding) if body is not None else None


def _known_unchanged(
    environment: CachedEnvironment, query: SnapshotQuery, condition: IfNoneMatch
) -> Reply | None:
    """Return the 304 for a router that follows deltas, whose body may never have been built here."""
    header = environment.header
    # It has exactly this revision, regardless of which bytes brought it there.
    if query.since != header.revision or (condition.epoch, condition.revision) != (
        header.epoch,
        header.revision,
    ):
        return None
    for tag in condition.tags:
        if (known := environment.unchanged.get(tag)) is not None:
            return known
    mine = b'"%s.%d.' % (header.epoch.encode(), header.revision)
    tag = next(tag for tag in condition.tags if tag.startswith(mine))
    if len(environment.unchanged) >= KEPT_ANSWERS:
        environment.unchanged.clear()
    environment.unchanged[tag] = reply = build.unsigned_304(tag, header.revision)
    return reply


def _keep_not_modified(environment: CachedEnvironment, asked: Asked, answer: NotModified) -> None:
    if len(environment.not_modified) >= KEPT_ANSWERS:
        environment.not_modified.clear()
    environment.not_modified[asked] = answer


async def _once(
    environment: CachedEnvironment,
    flight: Any,
    size: int,
    *,
    build: Callable[[], T],
    keep: Callable[[T], None],
) -> T:
    """Build and cache something once, even if many request it at the same time; large ones in a thread.

    It is cached in the same step that ends the flight. Otherwise a request in between would build it again.
    """
    if size <= BUILT_INLINE:
        built = build()
        keep(built)
        return built

    async def fly() -> T:
        try:
            built = await asyncio.to_thread(build)
            keep(built)
            return built
        finally:
            environment.in_flight.pop(flight, None)

    task = environment.in_flight.get(flight)
    if task is None:
        task = environment.in_flight[flight] = asyncio.get_running_loop().create_task(fly())
    landed: T = await asyncio.shield(task)  # one cancelled caller must not cancel it for the others
    return landed


async def _replaced(environment: CachedEnvironment, seconds: float, gone: "asyncio.Task[None]") -> None:
    """Wait until the environment is replaced, the time is over, or the router has hung up."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        _finish(waiter)

    environment.waiters.add(waiter)
    timer = loop.call_later(seconds, wake)
    gone.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        gone.remove_done_callback(wake)
        environment.waiters.discard(waiter)


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _release(waiters: list["asyncio.Future[None]"]) -> None:
    for start in range(0, len(waiters), WOKEN_AT_ONCE):
        for waiter in waiters[start : start + WOKEN_AT_ONCE]:
            _finish(waiter)
        await asyncio.sleep(0)


def _condition(header: bytes) -> IfNoneMatch:
    return _if_none_match(header) if len(header) <= SHORT else _if_none_match.__wrapped__(header)


@lru_cache(maxsize=8_192)
def _if_none_match(header: bytes) -> IfNoneMatch:
    """Parse by weak comparison (RFC 9110 13.1.2): our tags are strong, but a proxy may weaken or mark them."""
    tags = tuple(_COMPRESSED.sub(b'"', tag) for tag in _TAG.findall(header))
    ours = [(int(match[2]), match[1].decode("latin-1")) for tag in tags if (match := _OURS.fullmatch(tag))]
    revision, epoch = max(ours, default=(0, ""))
    return IfNoneMatch(tags, header.strip() == b"*", epoch, revision)


def _other_epoch(condition: IfNoneMatch | None, epoch: str) -> bool:
    return condition is not None and bool(condition.tags) and condition.epoch != epoch


def _asked_for(query: bytes) -> SnapshotQuery:
    return _parsed_query(query) if len(query) <= SHORT else _parsed_query.__wrapped__(query)


@lru_cache(maxsize=1_024)
def _parsed_query(query: bytes) -> SnapshotQuery:
    names, since = [], None
    for name, value in parameters(query):
        if name == "workload":
            names.append(value)
        elif name == "since":
            if not (value.isascii() and value.isdigit() and len(value) <= 18):
                raise InvalidInput(f"`since` must be a revision, a whole number from 0, not {value[:40]!r}.")
            since = int(value)
    return SnapshotQuery(frozenset(names) or None, since, tuple(sorted(set(names))))


def _wait(header: bytes) -> int:
    """Return the seconds requested by `Prefer: wait=N` (RFC 7240), capped; 0 without it."""
    match = _WAIT.search(header[:SHORT])
    return min(int(match[1]), LONGEST_WAIT_S) if match else 0


@lru_cache(maxsize=256)
def _encoding(header: bytes) -> str:
    """Return the best of zstd and gzip accepted by `Accept-Encoding`, "" for neither."""
    taken = set()
    for part in header.decode("latin-1").lower().split(","):
        name, _, parameters = part.strip().partition(";")
        quality = parameters.replace(" ", "").removeprefix("q=")
        if not (quality and quality.strip("0.") == ""):
            taken.add(name.strip())
    return next((name for name in ("zstd", "gzip") if name in taken), "")
