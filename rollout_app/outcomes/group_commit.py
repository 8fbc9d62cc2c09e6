"""Group commit: one thread per process writes what routers report, many requests per transaction.

While one group is committed, the next one gathers, so groups grow with the load: a commit costs the same for one
request as for 256. Above its limits it answers 429, so memory stays bounded; the router keeps its batch and retries.

A small group is counted at once. A large one is deferred: its answer waits only for the commit of its raw batches,
and it is counted together with other groups a moment later (see `store`).
"""

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from django.db import DatabaseError, DataError, connection

from controlplane.core.errors import InvalidInput, PointsmanError, TooMany, Unavailable
from controlplane.core.patience import SHORT_S, patience
from rollout_app import nudges
from rollout_app.outcomes import store
from rollout_app.outcomes.store import BAD_DATA, Accepted, DeferredGroups, Submission

log = logging.getLogger(__name__)

GROUP = 256  # maximum requests per transaction
GROUP_PARTS = 20_000  # maximum buckets and events per transaction
LINGER_S = 0.01  # how long a group may gather if the previous one had several requests
MOST_WAITING = 4_096  # requests
MOST_WAITING_PARTS = 50_000  # buckets and events: about 250 MB
# Buckets and events: larger groups of several requests are deferred, smaller ones counted at once.
DEFER_FROM = 200
FLUSH_AFTER_S = 2.0  # from the first deferred group to the transaction that counts it
FLUSH_SHARE = 0.2  # maximum share of time for flushing; with very many routes it flushes less often
FLUSH_LATEST_S = 8.0  # well before other processes consider the groups abandoned
MOST_DEFERRED = 20_000  # routes and minutes in memory, about 120 MB; above that it flushes at once
RETRY_S = 2.0  # after deferred groups could not be counted, so that an outage is not polled without pause
ABANDONED_EVERY_S = 5.0  # between searches for groups of killed processes


@dataclass(slots=True)
class _Pending:
    submission: Submission
    parts: int
    answer: "asyncio.Future[int]"


class Load(NamedTuple):
    """What is waiting now, and what was committed in groups since the process began."""

    waiting: int  # requests
    waiting_parts: int  # buckets, events
    groups: int  # transactions tried
    grouped: int  # requests in them


class GroupCommit(threading.Thread):
    """The process's writer of outcomes. `submit` queues a request; `run` commits groups and answers them."""

    def __init__(self) -> None:
        super().__init__(name="ingest-writer", daemon=True)
        self._waiting: deque[_Pending] = deque()
        self._parts = 0
        self._changed = threading.Condition()
        self._ending = False
        self._shared = False  # whether the last group had several requests
        self._groups = self._grouped = 0
        # Only the thread itself uses the attributes below.
        self._deferred = DeferredGroups()
        self._flush_took = 0.0  # seconds that the last flush took
        self._next_abandoned_check = 0.0  # monotonic time
        self._retry_at = 0.0  # monotonic time; nothing that failed is tried again before it
        self._turned_at = time.monotonic()

    def submit(self, submission: Submission, parts: int) -> "asyncio.Future[int]":
        """Queue one request from the event loop. Raises `TooMany` if too much waits, or `Unavailable` at shutdown."""
        waiting = _Pending(submission, parts, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._ending:
                raise Unavailable("This process is shutting down; send the batch again.", retry_after=1)
            if len(self._waiting) >= MOST_WAITING or self._parts + parts > MOST_WAITING_PARTS:
                raise TooMany(
                    f"{len(self._waiting)} batches wait to be counted; keep this one and send it again.",
                    retry_after=random.randint(1, 5),  # noqa: S311 — spreads load, hides nothing
                )
            self._waiting.append(waiting)
            self._parts += parts
            # Not for each request: waking a thread that is only gathering costs as much as reading a batch.
            if len(self._waiting) in (1, GROUP):
                self._changed.notify()
        return waiting.answer

    def load(self) -> Load:
        with self._changed:
            return Load(len(self._waiting), self._parts, self._groups, self._grouped)

    def age(self) -> float:
        """Return the seconds since the thread's last turn. It takes one every few seconds, even without requests."""
        return time.monotonic() - self._turned_at

    def stop(self) -> None:
        """Accept no more requests, commit those that wait, count what was deferred, and end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self.join(timeout=60)

    def run(self) -> None:
        with patience(SHORT_S):
            self._run()

    def _run(self) -> None:
        while (group := self._gather()) is not None:
            if group:
                self._commit_safely(group)
            if time.monotonic() >= self._retry_at:
                self._try(self._flush_if_due)
                self._try(self._flush_abandoned_if_due)
            self._turned_at = time.monotonic()
        self._try(self._flush)
        _close_quietly()

    # --- gathering ------------------------------------------------------------------------------------

    def _gather(self) -> list[_Pending] | None:
        """Return the next group; an empty one if other work is due; None at the end."""
        with self._changed:
            if not self._waiting and not self._ending:
                self._changed.wait(self._idle_s())
            deadline = time.monotonic() + (LINGER_S if self._shared else 0)
            while self._waiting and len(self._waiting) < GROUP and not self._ending:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            group = self._pop_group()
            return None if self._ending and not group else group

    def _pop_group(self) -> list[_Pending]:
        group: list[_Pending] = []
        parts = 0
        while self._waiting and len(group) < GROUP and (not group or parts < GROUP_PARTS):
            group.append(self._waiting.popleft())
            parts += group[-1].parts
        self._parts -= parts
        self._shared = len(group) > 1
        self._groups += bool(group)
        self._grouped += len(group)
        return group

    def _idle_s(self) -> float:
        """Return how long to wait for requests before other work is due."""
        now = time.monotonic()
        flush = self._flush_due() - now if self._deferred.groups else ABANDONED_EVERY_S
        return max(0.0, self._retry_at - now, min(flush, self._next_abandoned_check - now))

    # --- writing --------------------------------------------------------------------------------------

    def _commit_safely(self, group: Sequence[_Pending]) -> None:
        """Commit a group and never raise: without this thread, the process would accept batches and never
        answer them.
        """
        try:
            self._commit(group)
        except Exception as error:
            log.exception("a group of %d was not answered", len(group))
            _close_quietly()
            for waiting in group:
                _answer_error(waiting, _not_written(error))

    def _commit(self, group: Sequence[_Pending]) -> None:
        submissions = [waiting.submission for waiting in group]
        many = len(group) > 1 and sum(waiting.parts for waiting in group) >= DEFER_FROM
        try:
            accepted = store.defer(submissions, self._deferred) if many else store.count(submissions)
        except Exception as error:
            self._failed(group, error)
            return
        _answer_all(group, accepted)
        nudges.nudge(accepted.rollouts)

    def _failed(self, group: Sequence[_Pending], error: Exception) -> None:
        """Handle a group of which nothing was written. For bad data, try each request alone to find the one at
        fault.
        """
        if not isinstance(error, BAD_DATA) or connection.in_atomic_block:
            _close_quietly()
        if len(group) > 1 and isinstance(error, BAD_DATA):
            for waiting in group:
                self._commit([waiting])
            return
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        # An outage needs no traceback for each group.
        unexpected = None if isinstance(error, DatabaseError) else error
        log.warning("a group of %d was not counted (%s)", len(group), text, exc_info=unexpected)
        for waiting in group:
            _answer_error(waiting, _not_written(error))

    def _try(self, work: Callable[[], None]) -> None:
        """Run `work` and log errors. What fails is still stored as deferred groups, and a later search finds it."""
        try:
            work()
        except Exception as error:
            _close_quietly()
            self._retry_at = time.monotonic() + RETRY_S
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            unexpected = None if isinstance(error, DatabaseError) else error
            log.warning(
                "deferred groups were not counted (%s); they will be tried again", text, exc_info=unexpected
            )

    def _flush_due(self) -> float:
        wait = min(max(FLUSH_AFTER_S, self._flush_took / FLUSH_SHARE), FLUSH_LATEST_S)
        return self._deferred.began + wait

    def _flush_if_due(self) -> None:
        full = len(self._deferred.totals) >= MOST_DEFERRED
        if self._deferred.groups and (full or time.monotonic() >= self._flush_due()):
            self._flush()

    def _flush(self) -> None:
        if self._deferred.groups:
            began = time.monotonic()
            nudges.nudge(store.flush(self._deferred))
            self._flush_took = time.monotonic() - began

    def _flush_abandoned_if_due(self) -> None:
        if time.monotonic() >= self._next_abandoned_check:
            counted, rollouts = store.flush_abandoned()
            nudges.nudge(rollouts)
            self._next_abandoned_check = time.monotonic() + (0 if counted else ABANDONED_EVERY_S)


def _not_written(error: Exception) -> PointsmanError:
    # Only what the request must have caused: the router drops it.
    if isinstance(error, DataError | UnicodeError):
        return InvalidInput("The report contains a value that cannot be stored.")
    return Unavailable("The outcomes could not be written; send the batch again.", retry_after=5)


def _close_quietly() -> None:
    try:
        connection.close()
    except Exception:
        log.debug("a broken connection could not be closed", exc_info=True)


def _answer_all(group: Sequence[_Pending], accepted: Accepted) -> None:
    """Answer the whole group in one call into the event loop, because each call wakes it and costs a thread switch."""

    def answer() -> None:
        for waiting, number in zip(group, accepted.answers, strict=True):
            if not waiting.answer.done():  # cancelled if the router hung up; its batch still counts
                waiting.answer.set_result(number)

    _on_loop(group[0], answer)


def _answer_error(waiting: _Pending, error: PointsmanError) -> None:
    def answer() -> None:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)

    _on_loop(waiting, answer)


def _on_loop(waiting: _Pending, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        waiting.answer.get_loop().call_soon_threadsafe(callback)
