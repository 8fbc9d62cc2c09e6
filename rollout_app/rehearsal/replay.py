"""Recorded tasks through real routers: what was recorded of each model is what comes of a task, nothing else.

A task knows the outcome of every model that could be chosen for it. `Replay` draws tasks, lets a
`pointsman.Router` decide as it would in a gateway, follows its second stage, and records the outcome, which
reaches the control plane over HTTP like any other. No Django here: a replay is a client.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from itertools import count

from pointsman import Router
from pointsman.attempt import Attempt
from pointsman.decision import Decision
from rollout_app.backtest.tasks import Answer, Task

# Where how long an answer took was not recorded. Not a number means "no figure"; without it a router would take the
# microseconds of the replay for it.
UNKNOWN = math.nan
_CHUNKS = (
    10  # a minute's tasks are spread over it: a change of policy meets the minute's middle, as it would live
)


def _is_told(record: logging.LogRecord) -> bool:
    """Not the router's line about a latency that it left out: here it is left out on purpose, for every task."""
    return not (record.args and isinstance(record.args, tuple) and record.args[0] == "latency_ms")


logging.getLogger("pointsman").addFilter(_is_told)


class Stamps:
    """A clock that a replay moves by hand, a minute at a time: an hour of traffic passes in a minute.

    It begins in the past and never runs ahead of the real one: the control plane refuses minutes to come.
    """

    def __init__(self, start: float) -> None:
        self._now = start

    def __call__(self) -> float:
        """Unix seconds."""
        return self._now

    def tick(self) -> None:
        self._now = min(self._now + 60, time.time())


class Replay:
    """Sends `per_minute` tasks through `routers` in turn and calls that a minute; it takes `pace_s` seconds.

    draw   gives the next task
    stamps the routers' clock; it moves on only when every outcome of the minute has been accepted, because
           the control plane judges a minute once it has seen a later one
    """

    def __init__(
        self,
        routers: Sequence[Router],
        workload: str,
        draw: Callable[[], Task],
        stamps: Stamps,
        *,
        per_minute: int,
        pace_s: float = 1.0,
    ) -> None:
        self.routers, self.workload, self.draw, self.stamps = routers, workload, draw, stamps
        self.per_minute, self.pace_s = per_minute, pace_s
        self._numbers = count()

    def run(self, stopped: Callable[[], bool]) -> None:
        """Minute after minute until `stopped()`."""
        while not stopped():
            self.minute(stopped)

    def minute(self, stopped: Callable[[], bool] = lambda: False) -> None:
        began = time.monotonic()
        for chunk in range(_CHUNKS):
            first, last = (self.per_minute * part // _CHUNKS for part in (chunk, chunk + 1))
            for _ in range(first, last):
                self._one()
            if stopped():
                return
            # The last part of the second is left for the outcomes to arrive in.
            _sleep_until(began + self.pace_s * 0.6 * (chunk + 1) / _CHUNKS)
        while any(router.status()["outcomes_waiting"] for router in self.routers) and not stopped():
            time.sleep(0.02)
        self.stamps.tick()
        _sleep_until(began + self.pace_s)

    def _one(self) -> None:
        number = next(self._numbers)
        play(
            self.routers[number % len(self.routers)], self.workload, self.draw(), f"{self.workload}-{number}"
        )


def play(router: Router, workload: str, task: Task, unit: str) -> None:
    """One task, from the decision through its second stage to its outcome."""
    decision = router.decide(workload, task.request, {"request": unit})
    answer, took = _follow(decision, task)
    would = _candidates_own(decision)
    other = None if would is None else _follow(would, task)[0]
    cost = None if would is None else would.steps.cost_nusd
    router.record(
        decision,
        answer.success,
        quality=answer.quality,
        latency_ms=took,
        shadow_cost_nusd=cost,
        mirror_success=other.success if other is not None and decision.mirror else None,
        mirror_cost_nusd=cost if decision.mirror else None,
    )


def _follow(decision: Decision, task: Task) -> tuple[Answer, float]:
    """Attempt after attempt, until the policy is done: the answer that ended it, the milliseconds of all."""
    answer = task.answers[decision.model]
    took = UNKNOWN if answer.latency_ms is None else answer.latency_ms
    while not (step := decision.next(_attempt(answer))).done:
        answer = task.answers[step.model]
        took += UNKNOWN if answer.latency_ms is None else answer.latency_ms
    return answer, took


def _candidates_own(decision: Decision) -> Decision | None:
    """In shadow: the decision that the candidate would have served, to follow through its second stage too."""
    side = decision.assignment.candidate
    if decision.shadow is None or side is None:
        return None
    would = Decision(decision.assignment, side, decision.request, decision.unit_ids, None)
    would.route = decision.shadow
    return would


def _attempt(answer: Answer) -> Attempt:
    return Attempt(
        ok=answer.error is None,
        error=answer.error,
        confidence=answer.confidence,
        cost_nusd=answer.cost_nusd,
        latency_ms=answer.latency_ms or 0,
    )


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
