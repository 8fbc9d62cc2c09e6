"""Send recorded tasks through real routers. The recorded outcome of the chosen model becomes the task's outcome.

A task has the outcome of every model that could be chosen for it. `Replay` draws tasks, lets a `pointsman.Router`
decide as in a gateway, follows its second stage, and records the outcome, which reaches the control plane over HTTP
like any other. A replay is a client, so this module does not import Django.
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

# The latency if none was recorded. A router treats NaN as "no figure"; if nothing were passed, it would measure the
# microseconds of the replay.
UNKNOWN = math.nan
# A minute's tasks are sent in this many chunks, so a change of policy can happen within a minute, as in production.
_CHUNKS = 10


def _is_logged(record: logging.LogRecord) -> bool:
    """Drop the router's log line about an omitted latency: here latencies are omitted on purpose, for every task."""
    return not (record.args and isinstance(record.args, tuple) and record.args[0] == "latency_ms")


logging.getLogger("pointsman").addFilter(_is_logged)


class Stamps:
    """A clock that a replay advances one minute at a time, so that an hour of traffic can pass in a minute.

    It starts in the past and never runs ahead of the real time, because the control plane refuses future minutes.
    """

    def __init__(self, start: float) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return the time in Unix seconds."""
        return self._now

    def tick(self) -> None:
        self._now = min(self._now + 60, time.time())


class Replay:
    """Sends `per_minute` tasks through `routers` in turn for each simulated minute, which takes `pace_s` seconds.

    draw   returns the next task
    stamps the routers' clock; it advances only after every outcome of the minute has been accepted, because the
           control plane judges a minute once it has seen a later one
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
        """Run minute after minute until `stopped()` returns True."""
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
            # The rest of the time is for the outcomes to arrive.
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
    """Play one task, from the decision through its second stage to its outcome."""
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
    """Make attempts until the policy is done. Return the last answer and the total latency in milliseconds."""
    answer = task.answers[decision.model]
    took = UNKNOWN if answer.latency_ms is None else answer.latency_ms
    while not (step := decision.next(_attempt(answer))).done:
        answer = task.answers[step.model]
        took += UNKNOWN if answer.latency_ms is None else answer.latency_ms
    return answer, took


def _candidates_own(decision: Decision) -> Decision | None:
    """Return the candidate's shadow decision in a form that can be followed through its second stage, or None."""
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
