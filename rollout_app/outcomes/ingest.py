"""POST /router/v1/outcomes, events and feedback: check, hand to the group commit, answer 202 after its commit."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar, cast

from django.db import Error, connection

from controlplane.access.keyring import Caller
from controlplane.core import clock
from controlplane.core.errors import ClockAhead, Unavailable
from controlplane.web.replies import Reply, Request, json_reply
from pointsman.errors import PointsmanError as ClientError
from pointsman.reporting import consistency
from pointsman.reporting.histogram import index
from pointsman.token import DecisionToken
from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots.cache import SnapshotCache
from rollout_app.models import Feedback
from rollout_app.outcomes.aggregate import Contribution, Details, RouteKey
from rollout_app.outcomes.group_commit import GroupCommit, Load
from rollout_app.outcomes.lookups import KnownNames, Named
from rollout_app.outcomes.schemas import (
    FeedbackItem,
    Problem,
    ReportedBucket,
    details,
    event_bucket,
    numbers,
    read_batch,
    read_events,
    read_feedback,
    refusal,
)
from rollout_app.outcomes.store import Submission

T = TypeVar("T")

CLOCK_RETRY_S = 60
READ_INLINE = 64 * 1024  # bytes; larger bodies are decoded in a thread


class Ingest:
    """The write endpoints of one process.

    `snapshots` says which environments exist; `fleet` takes down whose clock is ahead.
    """

    def __init__(self, snapshots: SnapshotCache, fleet: FleetBuffer) -> None:
        self._snapshots = snapshots
        self._fleet = fleet
        self._names = KnownNames()
        self._group_commit = GroupCommit()
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="ingest-lookups")

    def start(self) -> None:
        self._group_commit.start()

    def stop(self) -> None:
        self._group_commit.stop()
        self._lookups.submit(lambda: connection.close())  # its own, so it is that thread that must ask for it
        self._lookups.shutdown()

    def load(self) -> Load:
        return self._group_commit.load()

    async def outcomes(self, request: Request, body: bytes) -> Reply:
        batch = await _read(read_batch, body)
        buckets, now = batch.buckets, _now()
        environment = self._environment(request)
        problems = [
            *_problems("buckets", buckets, consistency.contradictions, now),
            *_problems("decided", batch.decided, consistency.decided_contradictions, now),
            *_problems("cells", batch.cells, consistency.cells_contradictions, now),
        ]
        await self._refuse_unknown("buckets", request.caller, environment, enumerate(buckets), problems)
        minutes = (entry.minute for entries in (buckets, batch.decided, batch.cells) for entry in entries)
        self._refuse_ahead(request, environment, max(minutes, default=now), now)
        contributions = [self._contribution(environment, bucket) for bucket in buckets]
        submission = Submission(environment, {f"b:{batch.batch_id}": contributions}, accepted=len(buckets))
        return await self._commit(submission, len(buckets))

    async def events(self, request: Request, body: bytes) -> Reply:
        events = await _read(read_events, body)
        environment, now = self._environment(request), _now()
        problems = _problems("events", events, consistency.event_contradictions, now)
        await self._refuse_unknown("events", request.caller, environment, enumerate(events), problems)
        self._refuse_ahead(request, environment, max((event.at for event in events), default=now), now)
        parts: dict[str, list[Contribution]] = {}
        for event in events:
            part = [self._contribution(environment, event_bucket(event, index))]
            parts.setdefault(f"e:{event.event_id}", part)  # the first of two with one id
        return await self._commit(Submission(environment, parts, accepted=len(events)), len(events))

    async def feedback(self, request: Request, body: bytes) -> Reply:
        items = await _read(read_feedback, body)
        environment, now = self._environment(request), _now()
        problems: list[Problem] = []
        tokens = [_token(i, item, request.caller.environment, problems) for i, item in enumerate(items)]
        decoded = [(number, token) for number, token in enumerate(tokens) if token is not None]
        await self._refuse_unknown("feedback", request.caller, environment, decoded, problems)
        rows = [self._feedback_row(environment, items[number], token, now) for number, token in decoded]
        return await self._commit(Submission(environment, {}, rows, len(items)), len(items))

    # --- inside ---------------------------------------------------------------------------------------

    def _environment(self, request: Request) -> int:
        try:
            return self._snapshots[request.caller.environment].header.pk
        except KeyError:
            # Withheld after a restore, or not read yet: what was counted must not be lost over it.
            raise Unavailable(f"{request.caller.environment!r} is not served now; send it again.") from None

    async def _refuse_unknown(
        self,
        member: str,
        caller: Caller,
        environment: int,
        items: Iterable[tuple[int, Named]],
        problems: list[Problem],
    ) -> None:
        """Look up what is named for the first time, and raise the 422 if anything is wrong."""
        unconfirmed = [
            (number, item)
            for number, item in items
            if not self._names.is_confirmed(environment, item) or not caller.may_report(item.workload)
        ]
        if unresolved := self._names.unresolved(item for _, item in unconfirmed):
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._lookups, self._load, unresolved)
            except Error:
                raise Unavailable("The database is away; send it again.", retry_after=5) from None
        for number, item in unconfirmed:
            problem = self._names.problem(environment, item)
            if not caller.may_report(item.workload):
                problem = ("workload", f"this key may not report on {item.workload!r}")
            if problem:
                problems.append(Problem(number, *problem, member))
        if problems:
            raise refusal(member, sorted(problems))

    def _refuse_ahead(self, request: Request, environment: int, newest: datetime, now: datetime) -> None:
        """A clock that is ahead is no reason to lose what was counted by it: the router keeps it, and is told."""
        if not consistency.is_ahead(newest, now):
            return
        ahead = (newest - now).total_seconds()
        self._fleet.reported_ahead(environment, request.instance(), request.client(), ahead)
        raise ClockAhead(
            f"The newest minute lies {ahead / 60:.0f} minutes ahead of the control plane's clock. Keep it, set this "
            "machine's clock right, and send it again.",
            retry_after=CLOCK_RETRY_S,
            server_time=now.isoformat(timespec="seconds"),
        )

    def _load(self, wanted: list[Named]) -> None:
        try:
            self._names.load(wanted)
        except Error:
            connection.close()
            raise

    def _contribution(self, environment: int, bucket: ReportedBucket) -> Contribution:
        key = RouteKey(
            environment,
            self._names.workloads[bucket.workload],
            bucket.minute if bucket.minute.tzinfo is UTC else bucket.minute.astimezone(UTC),
            bucket.rollout or "",
            -1 if bucket.stage is None else bucket.stage,
            bucket.arm,
            bucket.version,
            bucket.endpoint,
            bucket.rule,
            bucket.model,
        )
        return Contribution(key, numbers(bucket), cast(Details, details(bucket)))

    def _feedback_row(
        self, environment: int, item: FeedbackItem, token: DecisionToken, now: datetime
    ) -> Feedback:
        return Feedback(
            environment_id=environment,
            workload_id=self._names.workloads[token.workload],
            decision_sha256=hashlib.sha256(item.decision_id.encode()).hexdigest(),
            kind=item.kind,
            success=item.success,
            score=item.score,
            rollout=token.rollout or "",
            arm=token.arm,
            version=token.version,
            endpoint=token.endpoint,
            rule=token.rule,
            model=token.model,
            at=now,
        )

    async def _commit(self, submission: Submission, parts: int) -> Reply:
        return _accepted(await self._group_commit.submit(submission, parts))


def _now() -> datetime:
    """The database's clock: it judges what routers report, not this machine's."""
    now = clock.running.now()
    if now is None:
        raise Unavailable("The database has not been asked for the time yet; send it again.", retry_after=1)
    return now


@cache
def _accepted(number: int) -> Reply:
    """The 202; there are a thousand at most."""
    return json_reply(202, {"accepted": number})


def _problems(
    member: str,
    entries: Sequence[T],
    contradictions: Callable[[T, datetime], consistency.Found],
    now: datetime,
) -> list[Problem]:
    return [
        Problem(index, field, message, member)
        for index, entry in enumerate(entries)
        for field, message in contradictions(entry, now)
    ]


async def _read(reader: Callable[[bytes], T], body: bytes) -> T:
    return reader(body) if len(body) <= READ_INLINE else await asyncio.to_thread(reader, body)


def _token(
    number: int, item: FeedbackItem, environment: str, problems: list[Problem]
) -> DecisionToken | None:
    try:
        token = DecisionToken.decode(item.decision_id)
    except ClientError as error:
        problems.append(Problem(number, "decision_id", str(error), "feedback"))
        return None
    if token.environment != environment:
        problems.append(
            Problem(number, "decision_id", "the decision was made in another environment", "feedback")
        )
    if token.arm not in ("baseline", "candidate") or _too_long(token):
        problems.append(Problem(number, "decision_id", "its fields are not those of a decision", "feedback"))
        return None
    return token


def _too_long(token: DecisionToken) -> bool:
    texts: Iterable[tuple[str, int]] = ((token.endpoint, 200), (token.rule, 120), (token.model, 120))
    return any(len(text) > most or "\0" in text for text, most in texts) or not 0 < token.version < 2**31
