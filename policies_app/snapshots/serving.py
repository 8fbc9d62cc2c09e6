"""GET /router/v1/snapshot and POST /router/v1/acks, answered from memory: no query on the way.

`boards` holds the current generation of each environment; the watcher's thread reads the next one and hands
it to `swap`. Everything else here runs on the event loop, so that between two awaits nothing moves.
"""

import asyncio
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

from django.conf import settings

from controlplane.access.keyring import Caller, Keyring
from controlplane.core.errors import InvalidInput, NotFound, Unavailable
from controlplane.web.replies import Line, Reply, Request, parameters
from policies_app.fleet.acks import read_ack
from policies_app.fleet.buffer import FleetBuffer, Position
from policies_app.snapshots import build
from policies_app.snapshots.cache import Answer, Generation, Question, Selection

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_WAIT_S = 30
# Waiters woken between two turns of the event loop, so that other requests come in between.
WOKEN_AT_ONCE = 32
# Bodies up to this size are built on the event loop: a thread would cost more than it spares.
BUILT_INLINE = 128 * 1024  # bytes
KEPT_ANSWERS = 1_024
KEPT_BYTES = 256 * 1024 * 1024  # of one generation's bodies
_TAG = re.compile(rb'(?:W/)?("[^"]*")')
_OURS = re.compile(rb'"([^".]{1,64})\.(\d{1,18})\.[0-9a-f]{16}"')
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class Condition(NamedTuple):
    """An `If-None-Match`: its tags without `W/`, and the newest revision that one of ours names."""

    tags: tuple[bytes, ...]
    anything: bool
    epoch: str
    revision: int


class Known(NamedTuple):
    """Why a request was answered 304, kept with it: while that holds, so does the answer.

    The generation is named and not held: connections that are seldom used would keep old ones alive.
    """

    serial: int
    allowed: Selection
    at: Position
    unchanged: Reply


class Serving:
    """The snapshot door of one process."""

    def __init__(self, keyring: Keyring, fleet: FleetBuffer) -> None:
        self.boards: dict[str, Generation] = {}
        self.held: Counter[str] = Counter()  # long polls by key id
        self.built = 0  # bodies, since the process began
        self.draining = False
        self._keyring = keyring
        self._fleet = fleet
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the watcher's side ---------------------------------------------------------------------------

    def swap(self, name: str, generation: Generation | None) -> None:
        """Serve the next generation (None: the environment is gone) and wake whoever waited for it."""
        old = self.boards.pop(name, None)
        if generation is not None:
            self.boards[name] = generation
        if old is not None:
            self._wake(old)

    def drain(self) -> None:
        """Answer every long poll now, and hold no more: the process is about to end."""
        self.draining = True
        for generation in self.boards.values():
            self._wake(generation)

    def _wake(self, generation: Generation) -> None:
        task = asyncio.get_running_loop().create_task(_release(list(generation.waiters)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the doors ------------------------------------------------------------------------------------

    def snapshot(self, request: Request, body: bytes = b"") -> Reply | Coroutine[Any, Any, Reply]:
        """At once where it is known; else what to await: a body to be built, or something newer."""
        caller, headers = request.caller, request.headers
        generation = self._board(caller)
        if (
            (known := request.known)
            and known.serial == generation.serial
            and known.allowed == caller.workloads
        ):
            self._fleet.polled(generation.look.pk, request.instance(), request.client(), *known.at)
            self._fleet.used(caller.pk)
            unchanged: Reply = known.unchanged
            return unchanged
        tags = headers.get(b"if-none-match")
        condition = _condition(tags) if tags is not None else None
        question = self._question(request, generation, condition)
        epoch, revision = (condition.epoch, condition.revision) if condition else ("", 0)
        self._fleet.polled(generation.look.pk, request.instance(), request.client(), epoch, revision)
        self._fleet.used(caller.pk)
        wait = _wait(headers[b"prefer"]) if b"prefer" in headers else 0
        if wait and condition is not None:
            return self._hold(request, question, condition, wait)
        encoding = _encoding(headers.get(b"accept-encoding", b""))
        reply = _known(generation, question, condition, encoding)
        if reply is None:
            return self._reply(generation, question, condition, encoding)
        if reply.status == 304:
            request.known = Known(generation.serial, caller.workloads, Position(epoch, revision), reply)
        return reply

    def ack(self, request: Request, body: bytes) -> Reply:
        ack = read_ack(body)
        look = self._board(request.caller).look
        instance = ack.router or request.instance()
        if ack.state == "leaving":
            self._fleet.left(look.pk, instance, request.client())
        elif ack.state == "applied":
            epoch, revision = ack.epoch or look.epoch, ack.revision or 0
            self._fleet.acked(look.pk, instance, request.client(), epoch, revision)
        elif not request.caller.may_report(ack.workload or ""):
            raise InvalidInput(f"This key knows no workload {ack.workload!r}.")
        else:
            self._fleet.refused(look.pk, instance, request.client(), look.revision, ack)
        return Reply(204, [])

    # --- inside ---------------------------------------------------------------------------------------

    def _board(self, caller: Caller) -> Generation:
        try:
            return self.boards[caller.environment]
        except KeyError:
            raise NotFound(f"There is no environment {caller.environment!r} any more.") from None

    def _question(self, request: Request, generation: Generation, condition: Condition | None) -> Question:
        selection, since = _parsed_query(request.query) if request.query else (None, None)
        allowed = request.caller.workloads
        if allowed is not None:
            selection = allowed if selection is None else selection & allowed
        look = generation.look
        if since is not None and (since > look.revision or _other_epoch(condition, look.epoch)):
            since = None  # it cannot be told what changed since then: everything
        return Question(selection, since)

    async def _hold(self, request: Request, question: Question, condition: Condition, wait: int) -> Reply:
        """Answer once there is something newer, or when the time is over."""
        caller, loop = request.caller, asyncio.get_running_loop()
        if self.held[caller.key_id] >= settings.MAX_WAITERS_PER_KEY:
            raise Unavailable(
                f"Key {caller.key_id} holds {settings.MAX_WAITERS_PER_KEY} long polls; poll without waiting.",
                retry_after=random.randint(5, 15),  # noqa: S311 — spreads load, hides nothing
            )
        deadline, line = loop.time() + wait, request.line
        encoding = _encoding(request.headers.get(b"accept-encoding", b""))
        self.held[caller.key_id] += 1
        try:
            while True:
                generation = self._board(caller)
                # Asked anew: a restore while it waited begins another epoch, and that needs a full answer.
                question = self._question(request, generation, condition)
                reply = await self._reply(generation, question, condition, encoding)
                left = deadline - loop.time()
                if reply.status != 304 or left <= 0 or self.draining or line.gone:
                    return reply.with_headers((b"preference-applied", b"wait=%d" % wait))
                if self.boards.get(caller.environment) is generation:
                    await _next(generation, left, line)
                caller = self._keyring.still_good(caller)
        finally:
            self.held[caller.key_id] -= 1

    async def _reply(
        self, generation: Generation, question: Question, condition: Condition | None, encoding: str
    ) -> Reply:
        if known := _known(generation, question, condition, encoding):
            return known
        answer = generation.answers.get(question)
        if answer is None:
            answer = await self._built(generation, question)
            if condition is not None and (condition.anything or answer.etag in condition.tags):
                return answer.unchanged
        return answer.by_encoding.get(encoding) or await self._encoded(generation, question, answer, encoding)

    async def _built(self, generation: Generation, question: Question) -> Answer:
        return await _once(
            generation,
            question,
            generation.size(question),
            build=lambda: build.answer(generation, question),
            keep=lambda answer: self._keep(generation, question, answer),
        )

    def _keep(self, generation: Generation, question: Question, answer: Answer) -> None:
        """Keep an answer for the next that asks, and let go of the oldest beyond the limits."""
        self.built += 1
        answers = generation.answers
        answers[question] = answer
        generation.unchanged[answer.etag] = answer.unchanged
        while len(answers) > KEPT_ANSWERS or (
            len(answers) > 1 and sum(len(kept.body) for kept in answers.values()) > KEPT_BYTES
        ):
            answers.pop(next(iter(answers)))

    async def _encoded(
        self, generation: Generation, question: Question, answer: Answer, encoding: str
    ) -> Reply:
        size = len(answer.body) if encoding else 0
        flight = (question, encoding)
        return await _once(
            generation,
            flight,
            size,
            build=lambda: build.encoded(answer, encoding),
            keep=lambda reply: answer.by_encoding.__setitem__(encoding, reply),
        )


def _known(
    generation: Generation, question: Question, condition: Condition | None, encoding: str
) -> Reply | None:
    """The answer, when it can be told without building anything."""
    answer = generation.answers.get(question)
    if condition is not None:
        if answer is not None and (condition.anything or answer.etag in condition.tags):
            return answer.unchanged
        if unchanged := _known_unchanged(generation, question, condition):
            return unchanged
    return answer.by_encoding.get(encoding) if answer is not None else None


def _known_unchanged(generation: Generation, question: Question, condition: Condition) -> Reply | None:
    """The 304 of a router that follows deltas, whose own bytes may never have been built here."""
    look = generation.look
    # It holds this very revision, whatever bytes brought it there.
    if question.since != look.revision or (condition.epoch, condition.revision) != (
        look.epoch,
        look.revision,
    ):
        return None
    for tag in condition.tags:
        if (known := generation.unchanged.get(tag)) is not None:
            return known
    mine = b'"%s.%d.' % (look.epoch.encode(), look.revision)
    tag = next(tag for tag in condition.tags if tag.startswith(mine))
    if len(generation.unchanged) >= KEPT_ANSWERS:
        generation.unchanged.clear()
    generation.unchanged[tag] = reply = build.unsigned_304(tag, look.revision)
    return reply


async def _once(
    generation: Generation, flight: Any, size: int, *, build: Callable[[], T], keep: Callable[[T], None]
) -> T:
    """Build and keep it once, however many ask at the same time; large ones in a thread.

    It is kept in the very step that ends the flight: one that asked between the two would build it again.
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
            generation.flights.pop(flight, None)

    task = generation.flights.get(flight)
    if task is None:
        task = generation.flights[flight] = asyncio.get_running_loop().create_task(fly())
    landed: T = await asyncio.shield(task)  # one that leaves must not take it from the others
    return landed


async def _next(generation: Generation, seconds: float, line: Line) -> None:
    """Until the generation is replaced, the time is over, or the router has hung up."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    generation.waiters.add(waiter)
    timer = loop.call_later(seconds, _finish, waiter)
    line.when_gone(partial(_finish, waiter))
    try:
        await waiter
    finally:
        timer.cancel()
        line.when_gone(None)
        generation.waiters.discard(waiter)


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _release(waiters: list["asyncio.Future[None]"]) -> None:
    for start in range(0, len(waiters), WOKEN_AT_ONCE):
        for waiter in waiters[start : start + WOKEN_AT_ONCE]:
            _finish(waiter)
        await asyncio.sleep(0)


@lru_cache(maxsize=8_192)
def _condition(header: bytes) -> Condition:
    """RFC 9110 13.1.2, by weak comparison: our tags are strong, but a proxy may weaken them."""
    tags = tuple(_TAG.findall(header))
    ours = [(int(match[2]), match[1].decode("latin-1")) for tag in tags if (match := _OURS.fullmatch(tag))]
    revision, epoch = max(ours, default=(0, ""))
    return Condition(tags, header.strip() == b"*", epoch, revision)


def _other_epoch(condition: Condition | None, epoch: str) -> bool:
    return condition is not None and bool(condition.tags) and condition.epoch != epoch


@lru_cache(maxsize=1_024)
def _parsed_query(query: bytes) -> Question:
    names, since = [], None
    for name, value in parameters(query):
        if name == "workload":
            names.append(value)
        elif name == "since":
            if not (value.isascii() and value.isdigit() and len(value) <= 18):
                raise InvalidInput(f"`since` is a revision, a whole number from 0 up, not {value[:40]!r}.")
            since = int(value)
    return Question(frozenset(names) or None, since)


@lru_cache(maxsize=256)
def _wait(header: bytes) -> int:
    """Seconds that `Prefer: wait=N` (RFC 7240) asks for, capped; 0 without."""
    match = _WAIT.search(header)
    return min(int(match[1]), LONGEST_WAIT_S) if match else 0


@lru_cache(maxsize=256)
def _encoding(header: bytes) -> str:
    """The best of zstd and gzip that `Accept-Encoding` takes, "" for neither."""
    taken = set()
    for part in header.decode("latin-1").lower().split(","):
        name, _, parameters = part.strip().partition(";")
        quality = parameters.replace(" ", "").removeprefix("q=")
        if not (quality and quality.strip("0.") == ""):
            taken.add(name.strip())
    return next((name for name in ("zstd", "gzip") if name in taken), "")
