"""The one thread of a process that writes what routers report: it gathers groups, commits, then answers.

While it commits one group the next gathers, so the busier it is the larger the groups: a commit costs the
same for one request and for 256. What it cannot take in time is refused with 429, so memory stays bounded and
the router, which keeps its batch, tries again.

A few requests are counted at once. A large group is kept, which is all that its answer waits for, and
counted with the groups around it a moment later (see `outcomes`).
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

from django.db import DataError, connection

from controlplane.core.errors import InvalidInput, PointsmanError, TooMany, Unavailable
from rollout_app import nudges
from rollout_app.outcomes import store
from rollout_app.outcomes.store import Accepted, Submission, Tally

log = logging.getLogger(__name__)

GROUP = 256  # requests in one transaction at most
GROUP_PARTS = 20_000  # buckets and events in one transaction at most
LINGER_S = 0.01  # how long a group may gather when the one before was shared
MOST_WAITING = 4_096  # requests
MOST_WAITING_PARTS = 50_000  # buckets and events: some 250 MB
KEEP_FROM = 200  # buckets and events: a shared group of as many is kept, a smaller one counted at once
SETTLE_S = 2.0  # from the first group kept to the transaction that counts it
SETTLE_SHARE = 0.2  # of the time may go into settling; with very many routes it comes less often instead
SETTLE_LATEST_S = 8.0  # well before others take the groups for left behind
MOST_KEPT = 20_000  # routes and minutes added up in memory: some 120 MB; beyond it is settled at once
LOOK_S = 5.0  # between looks for groups that a killed process left


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    parts: int
    answer: "asyncio.Future[int]"


class Load(NamedTuple):
    """What waits now, and what was committed together since the process began."""

    waiting: int  # requests
    waiting_parts: int  # buckets, events
    groups: int  # transactions tried
    grouped: int  # requests in them


class Writer(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="ingest-writer", daemon=True)
        self._waiting: deque[_Waiting] = deque()
        self._parts = 0
        self._changed = threading.Condition()
        self._ending = False
        self._shared = False  # the last group had company
        self._groups = self._grouped = 0
        # The rest is the thread's own.
        self._tally = Tally()
        self._settling_took = 0.0  # seconds, the last time
        self._next_look = 0.0  # monotonic time

    def submit(self, submission: Submission, parts: int) -> "asyncio.Future[int]":
        """Queue one request, from the event loop. Raises `TooMany` (too much waits) or `Unavailable` (the end)."""
        waiting = _Waiting(submission, parts, asyncio.get_running_loop().create_future())
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
            # Not for each one: to wake a thread that only gathers costs as much as to read a batch.
            if len(self._waiting) in (1, GROUP):
                self._changed.notify()
        return waiting.answer

    def load(self) -> Load:
        with self._changed:
            return Load(len(self._waiting), self._parts, self._groups, self._grouped)

    def stop(self) -> None:
        """Take no more, commit what waits, count what was kept, end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self.join(timeout=60)

    def run(self) -> None:
        while (group := self._gather()) is not None:
            if group:
                self._take(group)
            self._try(self._settle_if_due)
            self._try(self._look_if_due)
        self._try(self._settle)
        connection.close()

    # --- gathering ------------------------------------------------------------------------------------

    def _gather(self) -> list[_Waiting] | None:
        """The next group; an empty one when there is something else to do; None at the end."""
        with self._changed:
            if not self._waiting and not self._ending:
                self._changed.wait(self._idle_s())
            deadline = time.monotonic() + (LINGER_S if self._shared else 0)
            while self._waiting and len(self._waiting) < GROUP and not self._ending:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            group = self._taken()
            return None if self._ending and not group else group

    def _taken(self) -> list[_Waiting]:
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

    def _idle_s(self) -> float:
        """How long there is nothing to do if nothing comes."""
        now = time.monotonic()
        settling = self._settling_due() - now if self._tally.groups else LOOK_S
        return max(0.0, min(settling, self._next_look - now))

    # --- writing --------------------------------------------------------------------------------------

    def _take(self, group: Sequence[_Waiting]) -> None:
        submissions = [waiting.submission for waiting in group]
        many = len(group) > 1 and sum(waiting.parts for waiting in group) >= KEEP_FROM
        try:
            accepted = store.keep(submissions, self._tally) if many else store.count(submissions)
        except Exception as error:
            self._failed(group, error)
            return
        _tell(group, accepted)
        nudges.nudge(accepted.rollouts)

    def _failed(self, group: Sequence[_Waiting], error: Exception) -> None:
        """Nothing of the group was written. Whether one of it is to blame shows when each is tried alone."""
        if not isinstance(error, DataError) or connection.in_atomic_block:
            connection.close()
        if len(group) > 1 and isinstance(error, DataError):
            for waiting in group:
                self._take([waiting])
            return
        log.warning("a group of %d was not counted", len(group), exc_info=error)
        for waiting in group:
            if isinstance(error, DataError):
                _refuse(waiting, InvalidInput("A figure is larger than can be counted."))
            else:
                _refuse(
                    waiting,
                    Unavailable("The outcomes could not be written; send the batch again.", retry_after=5),
                )

    def _try(self, work: Callable[[], None]) -> None:
        """What fails here is in the rows of the groups, and found by a later look."""
        try:
            work()
        except Exception as error:
            connection.close()
            log.warning("kept groups were not counted; another look will", exc_info=error)

    def _settling_due(self) -> float:
        wait = min(max(SETTLE_S, self._settling_took / SETTLE_SHARE), SETTLE_LATEST_S)
        return self._tally.began + wait

    def _settle_if_due(self) -> None:
        full = len(self._tally.sums) >= MOST_KEPT
        if self._tally.groups and (full or time.monotonic() >= self._settling_due()):
            self._settle()

    def _settle(self) -> None:
        if self._tally.groups:
            began = time.monotonic()
            nudges.nudge(store.settle(self._tally))
            self._settling_took = time.monotonic() - began

    def _look_if_due(self) -> None:
        if time.monotonic() >= self._next_look:
            counted, rollouts = store.settle_left()
            nudges.nudge(rollouts)
            self._next_look = time.monotonic() + (0 if counted else LOOK_S)


def _tell(group: Sequence[_Waiting], accepted: Accepted) -> None:
    """Answer all of a group in one call into the event loop: each call wakes it up and costs a switch of threads."""

    def answer() -> None:
        for waiting, number in zip(group, accepted.answers, strict=True):
            if not waiting.answer.done():  # a router that hung up has cancelled it; its batch counts
                waiting.answer.set_result(number)

    _on_loop(group[0], answer)


def _refuse(waiting: _Waiting, error: PointsmanError) -> None:
    def answer() -> None:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)

    _on_loop(waiting, answer)


def _on_loop(waiting: _Waiting, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        waiting.answer.get_loop().call_soon_threadsafe(callback)
