"""POST /router/v1/outcomes, events and feedback: check, queue, commit in groups, and only then 202.

One thread writes. While it commits one group the next gathers, so the busier it is the larger the groups: a
commit costs the same for one request and for 256. What it cannot take in time is refused at the door with
429, so memory stays bounded and the router, which keeps its batch, tries again.
"""

import asyncio
import hashlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from django.db import DataError, Error, connection

from controlplane.errors import InvalidInput, TooMany, Unavailable
from controlplane.replies import Reply, Request, json_reply
from pointsman.decision import DecisionToken
from pointsman.errors import PointsmanError as ClientError
from pointsman.histogram import index
from policies_app.boards import Generation
from rollout_app import nudges, outcomes
from rollout_app.batches import (
    Bucket,
    Event,
    Problem,
    Word,
    details,
    event_bucket,
    numbers,
    read_batch,
    read_events,
    read_feedback,
    refusal,
)
from rollout_app.known import Known, Wanted
from rollout_app.models import Feedback
from rollout_app.outcomes import Contribution, Key, Submission
from rollout_app.soundness import contradictions, event_problems

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP = 256  # requests in one transaction at most
GROUP_PARTS = 20_000  # buckets and events in one transaction at most
LINGER_S = 0.02  # how long a group may gather when the one before was shared
MOST_WAITING = 4_096  # requests
MOST_WAITING_PARTS = 100_000  # buckets and events: some 200 MB
READ_INLINE = 64 * 1024  # bytes; larger bodies are decoded in a thread


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    parts: int
    done: "Future[int]" = field(default_factory=Future)


class Load(NamedTuple):
    """What waits now, and what was committed together since the process began."""

    waiting: int  # requests
    waiting_parts: int  # buckets, events
    groups: int  # transactions tried
    grouped: int  # requests in them


class Writer(threading.Thread):
    """The one thread of a process that counts outcomes."""

    def __init__(self) -> None:
        super().__init__(name="ingest-writer", daemon=True)
        self._waiting: deque[_Waiting] = deque()
        self._parts = 0
        self._changed = threading.Condition()
        self._ending = False
        self._shared = False  # the last group had company
        self._groups = self._grouped = 0

    def submit(self, submission: Submission, parts: int) -> "Future[int]":
        """Queue one request. Raises `TooMany` (too much waits) or `Unavailable` (the process is ending)."""
        waiting = _Waiting(submission, parts)
        with self._changed:
            if self._ending:
                raise Unavailable("This process is ending; send the batch again.", retry_after=1)
            if len(self._waiting) >= MOST_WAITING or self._parts + parts > MOST_WAITING_PARTS:
                raise TooMany(
                    f"{len(self._waiting)} batches wait to be counted; keep this one and send it again.",
                    retry_after=random.randint(1, 5),  # noqa: S311 — spreads load, hides nothing
                )
            self._waiting.append(waiting)
            self._parts += parts
            self._changed.notify()
        return waiting.done

    def load(self) -> Load:
        with self._changed:
            return Load(len(self._waiting), self._parts, self._groups, self._grouped)

    def stop(self) -> None:
        """Take no more, commit what waits, end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self.join(timeout=60)

    def run(self) -> None:
        while group := self._gather():
            self._count(group)
        connection.close()

    def _gather(self) -> list[_Waiting]:
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            deadline = time.monotonic() + (LINGER_S if self._shared else 0)
            while len(self._waiting) < GROUP and not self._ending:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            group: list[_Waiting] = []
            parts = 0
            while self._waiting and len(group) < GROUP and (not group or parts < GROUP_PARTS):
                group.append(self._waiting.popleft())
                parts += group[-1].parts
            self._parts -= parts
            self._shared = len(group) > 1
            self._groups += bool(group)
            self._grouped += len(group)
            return group

    def _count(self, group: Sequence[_Waiting]) -> None:
        try:
            accepted = outcomes.accept([waiting.submission for waiting in group])
        except Error as error:
            self._failed(group, error)
            return
        for waiting, answer in zip(group, accepted.answers, strict=True):
            waiting.done.set_result(answer)
        if accepted.rollouts:
            nudges.nudge(accepted.rollouts)

    def _failed(self, group: Sequence[_Waiting], error: Error) -> None:
        """Nothing of the group was counted. Whether one of it is to blame shows when each is tried alone."""
        if not isinstance(error, DataError) or connection.in_atomic_block:
            connection.close()
        if len(group) > 1 and isinstance(error, DataError):
            for waiting in group:
                self._count([waiting])
            return
        log.warning("a group of %d was not counted: %s", len(group), error)
        for waiting in group:
            if isinstance(error, DataError):
                waiting.done.set_exception(InvalidInput("A figure is larger than can be counted."))
            else:
                waiting.done.set_exception(
                    Unavailable("The outcomes could not be written; send the batch again.", retry_after=5)
                )


class Ingest:
    """The doors of one process. `boards` says which environments there are."""

    def __init__(self, boards: dict[str, Generation]) -> None:
        self._boards = boards
        self._known = Known()
        self._writer = Writer()
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="ingest-lookups")

    def start(self) -> None:
        self._writer.start()

    def stop(self) -> None:
        self._writer.stop()
        self._lookups.submit(connection.close)
        self._lookups.shutdown()

    def load(self) -> Load:
        return self._writer.load()

    async def outcomes(self, request: Request, body: bytes) -> Reply:
        batch, buckets = await _read(read_batch, body)
        environment, now = self._environment(request), datetime.now(UTC)
        problems = [p for i, bucket in enumerate(buckets) for p in contradictions(i, bucket, now)]
        await self._refuse_unknown("buckets", request, environment, buckets, problems)
        contributions = [self._contribution(environment, bucket) for bucket in buckets]
        submission = Submission(environment, {f"b:{batch}": contributions}, accepted=len(buckets))
        return await self._counted(submission, len(buckets))

    async def events(self, request: Request, body: bytes) -> Reply:
        events = await _read(read_events, body)
        environment, now = self._environment(request), datetime.now(UTC)
        problems = [p for i, event in enumerate(events) for p in event_problems(i, event, now)]
        await self._refuse_unknown("events", request, environment, events, problems)
        parts: dict[str, list[Contribution]] = {}
        for event in events:
            part = [self._contribution(environment, event_bucket(event, index))]
            parts.setdefault(f"e:{event.event_id}", part)  # the first of two with one id
        return await self._counted(Submission(environment, parts, accepted=len(events)), len(events))

    async def feedback(self, request: Request, body: bytes) -> Reply:
        words = await _read(read_feedback, body)
        environment, now = self._environment(request), datetime.now(UTC)
        problems: list[Problem] = []
        tokens = [_token(i, word, request.caller.environment, problems) for i, word in enumerate(words)]
        said = [(word, token) for word, token in zip(words, tokens, strict=True) if token is not None]
        await self._refuse_unknown("feedback", request, environment, [token for _, token in said], problems)
        rows = [self._word(environment, word, token, now) for word, token in said]
        return await self._counted(Submission(environment, {}, rows, len(words)), len(words))

    # --- inside ---------------------------------------------------------------------------------------

    def _environment(self, request: Request) -> int:
        try:
            return self._boards[request.caller.environment].look.pk
        except KeyError:
            raise InvalidInput(f"There is no environment {request.caller.environment!r} any more.") from None

    async def _refuse_unknown(
        self,
        member: str,
        request: Request,
        environment: int,
        items: Sequence[Bucket | Event | DecisionToken],
        problems: list[Problem],
    ) -> None:
        """Look up what is named for the first time, and raise the 422 if anything is wrong."""
        wanted = [Wanted(i.workload, i.version, i.arm, i.rollout, i.stage) for i in items]
        if lacking := self._known.lacks(set(wanted)):
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._lookups, self._load, lacking)
            except Error:
                raise Unavailable("The database is away; send it again.", retry_after=5) from None
        for number, item in enumerate(wanted):
            objection = self._known.objection(environment, item)
            if not request.caller.may_report(item.workload):
                objection = ("workload", f"this key may not report on {item.workload!r}")
            if objection:
                problems.append(Problem(number, *objection))
        if problems:
            raise refusal(member, sorted(problems))

    def _load(self, wanted: list[Wanted]) -> None:
        try:
            self._known.load(wanted)
        except Error:
            connection.close()
            raise

    def _contribution(self, environment: int, bucket: Bucket) -> Contribution:
        key = Key(
            environment,
            self._known.workloads[bucket.workload],
            bucket.minute.astimezone(UTC),
            bucket.rollout or "",
            -1 if bucket.stage is None else bucket.stage,
            bucket.arm,
            bucket.version,
            bucket.endpoint,
            bucket.rule,
            bucket.model,
        )
        return Contribution(key, numbers(bucket), details(bucket))

    def _word(self, environment: int, word: Word, token: DecisionToken, now: datetime) -> Feedback:
        return Feedback(
            environment_id=environment,
            workload_id=self._known.workloads[token.workload],
            decision_sha256=hashlib.sha256(word.decision_id.encode()).hexdigest(),
            kind=word.kind,
            success=word.success,
            score=word.score,
            rollout=token.rollout or "",
            arm=token.arm,
            version=token.version,
            endpoint=token.endpoint,
            rule=token.rule,
            model=token.model,
            at=now,
        )

    async def _counted(self, submission: Submission, parts: int) -> Reply:
        done = self._writer.submit(submission, parts)
        # Shielded: a router that hangs up takes its answer away, not its batch out of the group.
        accepted = await asyncio.shield(asyncio.wrap_future(done))
        return json_reply(202, {"accepted": accepted})


async def _read(reader: Callable[[bytes], T], body: bytes) -> T:
    return reader(body) if len(body) <= READ_INLINE else await asyncio.to_thread(reader, body)


def _token(number: int, word: Word, environment: str, problems: list[Problem]) -> DecisionToken | None:
    try:
        token = DecisionToken.decode(word.decision_id)
    except ClientError as error:
        problems.append(Problem(number, "decision_id", str(error)))
        return None
    if token.environment != environment:
        problems.append(Problem(number, "decision_id", "the decision was made in another environment"))
    if token.arm not in ("baseline", "candidate") or _too_long(token):
        problems.append(Problem(number, "decision_id", "its fields are not those of a decision"))
        return None
    return token


def _too_long(token: DecisionToken) -> bool:
    texts: Iterable[tuple[str, int]] = ((token.endpoint, 200), (token.rule, 120), (token.model, 120))
    return any(len(text) > most or "\0" in text for text, most in texts) or not 0 < token.version < 2**31
