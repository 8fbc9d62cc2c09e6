"""POST /router/v1/outcomes, events and feedback: check, pass to the group commit, answer 202 after the commit."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from django.db import Error, connection

from controlplane.access.keyring import Caller
from controlplane.core import clock
from controlplane.core.errors import ClockAhead, Unavailable
from controlplane.core.patience import SHORT_S, patience
from controlplane.core.threads import close_aged_connections
from controlplane.web.replies import Reply, Request, json_reply
from controlplane.web.shares import Shared
from pointsman.plurals import counted
from pointsman.reporting import consistency
from pointsman.reporting.histogram import index
from pointsman.token import DecisionToken
from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots.cache import SnapshotCache
from rollout_app.outcomes import contributions, feedback
from rollout_app.outcomes.aggregate import ArmContribution, ArmKey, Contribution, RouteKey
from rollout_app.outcomes.feedback import GradedWorkload
from rollout_app.outcomes.group_commit import GroupCommit, Load
from rollout_app.outcomes.lookups import KnownNames, Named
from rollout_app.outcomes.reported import ReportedTasks
from rollout_app.outcomes.schemas import (
    FeedbackItem,
    Problem,
    ReportedBucket,
    ReportedCells,
    ReportedDecided,
    ReportedEvent,
    read_batch,
    read_events,
    read_feedback,
    refusal,
)
from rollout_app.outcomes.store import Submission

T = TypeVar("T")

CLOCK_RETRY_S = 30
# Reports that may wait for a look-up, each with its body. Without a limit, memory would grow for as long as the
# database does not answer.
MOST_LOOKUPS = 256
FEW_LOOKUPS = 16  # of one key, also while other keys have many
READ_INLINE = 64 * 1024  # bytes; larger bodies are decoded in a thread


class Ingest:
    """The write endpoints of one process.

    `snapshots` lists the environments; `fleet` records routers whose clock is ahead.
    """

    def __init__(self, snapshots: SnapshotCache, fleet: FleetBuffer) -> None:
        self._snapshots = snapshots
        self._fleet = fleet
        self._names = KnownNames()
        self._group_commit = GroupCommit()
        self.reported = ReportedTasks()
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="ingest-lookups")
        self._looking_up = Shared()  # reports that wait for it, by key

    def start(self) -> None:
        self._group_commit.start()

    def stop(self) -> None:
        self._group_commit.stop()
        # The connection belongs to that thread, so that thread must close it.
        self._lookups.submit(lambda: connection.close())
        self._lookups.shutdown()

    def age(self) -> float:
        """Return the seconds since the committing thread's last turn."""
        return self._group_commit.age()

    def load(self) -> Load:
        return self._group_commit.load()

    async def outcomes(self, request: Request, body: bytes) -> Reply:
        batch = await _read(read_batch, body)
        environment, now = self._environment(request), _now()
        decided = batch.decided or []
        problems = [
            *_problems("buckets", batch.buckets, consistency.contradictions, now),
            *_problems("decided", decided, consistency.decided_contradictions, now),
            *_problems("cells", batch.cells, consistency.cells_contradictions, now),
        ]
        named: list[tuple[str, int, Named]] = [("buckets", *item) for item in enumerate(batch.buckets)]
        named += [("decided", *item) for item in enumerate(decided)]
        named += [("cells", *item) for item in enumerate(batch.cells)]
        await self._refuse_unknown("buckets", request.caller, environment, named, problems)
        minutes = [
            *(one.minute for one in batch.buckets),
            *(one.minute for one in decided),
            *(one.minute for one in batch.cells),
        ]
        self._refuse_ahead(request, environment, max(minutes, default=now), now)
        if batch.decided is None and batch.buckets:
            self._fleet.reported_partly(environment, request.instance())
        part: list[Contribution | ArmContribution] = [
            self._of_bucket(environment, bucket, tracked=batch.decided is not None)
            for bucket in batch.buckets
        ]
        part += [contributions.of_decided(self._arm_key(environment, one), one) for one in decided]
        part += [
            contributions.of_cells(self._arm_key(environment, one), one)
            for one in batch.cells
            if self._names.graded_by_record(one.workload)
        ]
        accepted = len(batch.buckets)
        reply = await self._commit(
            Submission(environment, {f"b:{batch.batch_id}": part}, accepted=accepted), len(part)
        )
        self.reported.add(request.caller.environment, batch.buckets)
        return reply

    async def events(self, request: Request, body: bytes) -> Reply:
        events = await _read(read_events, body)
        environment, now = self._environment(request), _now()
        problems = _problems("events", events, consistency.event_contradictions, now)
        named = [("events", *item) for item in enumerate(events)]
        await self._refuse_unknown("events", request.caller, environment, named, problems)
        self._refuse_ahead(request, environment, max((event.at for event in events), default=now), now)
        await self._add_stages(request.caller, events)
        self._fleet.reported_partly(environment, request.instance())
        caps = await self._cost_caps(request.caller, (event.rollout for event in events))
        parts: dict[str, list[Contribution]] = {}
        buckets = [contributions.event_bucket(each, index, caps.get(each.rollout or "")) for each in events]
        for event, bucket in zip(events, buckets, strict=True):
            part: list[Contribution] = [self._of_bucket(environment, bucket, tracked=False)]
            parts.setdefault(f"e:{event.event_id}", part)  # of two events with one id, the first counts
        reply = await self._commit(Submission(environment, parts, accepted=len(events)), len(events))
        self.reported.add(request.caller.environment, buckets)
        return reply

    async def feedback(self, request: Request, body: bytes) -> Reply:
        items = await _read(read_feedback, body)
        environment, now = self._environment(request), _now()
        problems: list[Problem] = []
        tokens = [
            feedback.token_of(i, item, request.caller.environment, problems) for i, item in enumerate(items)
        ]
        decoded = [(number, token) for number, token in enumerate(tokens) if token is not None]
        named = [("feedback", *item) for item in decoded]
        await self._refuse_unknown("feedback", request.caller, environment, named, problems)
        self._refuse_grades_ahead(items, decoded, now)
        caps = await self._cost_caps(request.caller, (token.rollout for _, token in decoded))
        grades = [
            feedback.grade(
                environment,
                items[number],
                token,
                self._graded(token.workload),
                caps.get(token.rollout or ""),
                now,
            )
            for number, token in decoded
        ]
        return await self._commit(Submission(environment, {}, grades, len(items)), len(items))

    # --- inside ---------------------------------------------------------------------------------------

    def _environment(self, request: Request) -> int:
        try:
            return self._snapshots[request.caller.environment].header.pk
        except KeyError:
            # Withheld after a restore, or not read yet: the router must keep its counts and retry.
            raise Unavailable(
                f"{request.caller.environment!r} is not being served at the moment; send it again."
            ) from None

    async def _add_stages(self, caller: Caller, events: Iterable[ReportedEvent]) -> None:
        """Count an event that names a rollout without a stage for the stage that was served at its time.

        A client that asks for its model like for a flag is not told the stage. Without one, the event would be
        accepted and never judged; in a later stage it would look like a wrong share of the traffic.
        """
        bare = [event for event in events if event.rollout is not None and event.stage is None]
        if not bare:
            return
        over = await self._looked_up(caller, self._names.stages_over_time, {event.rollout for event in bare})
        for event in bare:
            moves = over.get(event.rollout or "", [])
            past = [stage for since, stage in moves if since <= event.at]
            # A clock behind ours, or whole seconds, can place an event before the start.
            event.stage = past[-1] if past else moves[0][1] if moves else None

    async def _cost_caps(self, caller: Caller, rollouts: Iterable[str | None]) -> dict[str, int | None]:
        """Return the cost caps in nano-USD by rollout."""
        named = {rollout for rollout in rollouts if rollout}
        return await self._looked_up(caller, self._names.cost_caps, named) if named else {}

    async def _refuse_unknown(
        self,
        member: str,
        caller: Caller,
        environment: int,
        named: Iterable[tuple[str, int, Named]],
        problems: list[Problem],
    ) -> None:
        """Look up names that are new to this process, and raise the 422 if anything is wrong.

        member   the list that the request is about
        named    each entry that names something, as (list, index, entry)
        """
        unconfirmed = [
            (at, number, item)
            for at, number, item in named
            if not self._names.is_confirmed(environment, item) or not caller.may_report(item.workload)
        ]
        if unresolved := self._names.unresolved(item for _, _, item in unconfirmed):
            await self._looked_up(caller, self._names.load, unresolved)
        for at, number, item in unconfirmed:
            problem = self._names.problem(environment, item)
            if not caller.may_report(item.workload):
                problem = ("workload", f"this key may not report on {item.workload!r}")
            if problem:
                problems.append(Problem(number, *problem, at))
        if problems:
            raise refusal(member, sorted(problems))
        if self._names.signals_are_due():
            await self._looked_up(caller, self._names.load_signals)

    async def _looked_up(self, caller: Caller, lookup: Callable[..., T], *given: object) -> T:
        """Query the database in the thread that has a connection for it.

        Raises `Unavailable` if too many wait already, or too many of this key, so that one key cannot stop the reports
        of others. Also for a report that has waited for its turn as long as a statement may take: otherwise many would
        wait for the time limits of all those before them.
        """
        if not self._looking_up.has_room(caller.pk, most=MOST_LOOKUPS, small=FEW_LOOKUPS, more=1):
            raise _database_away()
        asked = time.monotonic()

        def run() -> T:
            if time.monotonic() - asked > SHORT_S:
                raise _database_away()
            try:
                close_aged_connections()
                with patience(SHORT_S):
                    return lookup(*given)
            except Error:
                connection.close()
                raise

        self._looking_up.take(caller.pk, 1)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._lookups, run)
        except Error:
            raise _database_away() from None
        finally:
            self._looking_up.give_back(caller.pk, 1)

    def _refuse_ahead(self, request: Request, environment: int, newest: datetime, now: datetime) -> None:
        """Raise `ClockAhead` if the router's clock is ahead. The router keeps its counts and is told the
        server's time.
        """
        if not consistency.is_ahead(newest, now):
            return
        ahead = (newest - now).total_seconds()
        self._fleet.reported_ahead(environment, request.instance(), request.client(), ahead)
        raise ClockAhead(
            f"The newest minute is {ahead / 60:.0f} minutes ahead of the control plane's clock. Keep the report, "
            "correct this machine's clock, and send it again.",
            retry_after=CLOCK_RETRY_S,
            server_time=now.isoformat(timespec="seconds"),
        )

    def _refuse_grades_ahead(
        self, items: Sequence[FeedbackItem], decoded: Iterable[tuple[int, DecisionToken]], now: datetime
    ) -> None:
        """Raise for grades of tasks whose minute is ahead, and name them: the sums do not have that minute yet.

        The clock may be that of another router, so this one is not blamed. A token is not authenticated, so one far
        ahead is refused for good instead of being sent again until then.
        """
        minutes = {
            number: minute
            for number, token in decoded
            if feedback.is_grade(items[number], self._graded(token.workload))
            and consistency.is_ahead(minute := feedback.minute_of(token), now)
        }
        ahead = "the task is ahead of the control plane's clock"
        if never := [number for number, minute in minutes.items() if minute > now + feedback.FARTHEST]:
            wrong = [Problem(n, "decision_id", f"{ahead} by more than a day", "feedback") for n in never]
            raise refusal("feedback", wrong)
        if minutes:
            tasks = "its task is" if len(minutes) == 1 else "their tasks are"
            raise ClockAhead(
                f"{counted(len(minutes), 'feedback item')} cannot be counted yet: {tasks} ahead of the control "
                "plane's clock by more than 5 minutes. Send the other items now and these later.",
                problems=[asdict(Problem(n, "decision_id", ahead, "feedback")) for n in minutes],
                retry_after=CLOCK_RETRY_S,
                server_time=now.isoformat(timespec="seconds"),
            )

    def _of_bucket(self, environment: int, bucket: ReportedBucket, *, tracked: bool) -> Contribution:
        key = RouteKey(*self._arm_key(environment, bucket), bucket.endpoint, bucket.rule, bucket.model)
        by_record = self._names.graded_by_record(bucket.workload)
        return contributions.of_bucket(key, bucket, by_record=by_record, tracked=tracked)

    def _arm_key(self, environment: int, item: ReportedBucket | ReportedDecided | ReportedCells) -> ArmKey:
        return ArmKey(
            environment,
            self._names.workloads[item.workload],
            item.minute if item.minute.tzinfo is UTC else item.minute.astimezone(UTC),
            item.rollout or "",
            -1 if item.stage is None else item.stage,
            item.arm,
            item.version,
        )

    def _graded(self, workload: str) -> GradedWorkload:
        return GradedWorkload(self._names.workloads[workload], self._names.signals[workload])

    async def _commit(self, submission: Submission, parts: int) -> Reply:
        return _accepted(await self._group_commit.submit(submission, parts))


def _now() -> datetime:
    """Return the time by the database's clock. Reports are judged by it, not by this machine's clock."""
    now = clock.running.now()
    if now is None:
        raise Unavailable("The server has not read the database's clock yet; send it again.", retry_after=1)
    return now


def _database_away() -> Unavailable:
    return Unavailable("The database is unavailable; send it again.", retry_after=5)


@cache
def _accepted(number: int) -> Reply:
    """Return the 202. The cache holds a thousand replies at most."""
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
