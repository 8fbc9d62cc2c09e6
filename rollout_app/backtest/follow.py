"""Follow one task through a policy's two stages, with recorded answers instead of calls.

The steps are the router's own (`pointsman.steps`), so a backtest does what a router would have done. Two things are
not in recordings and stay unknown: `history.*` (rules that read it do not match, as in a router that just started)
and conversations that stay escalated (`latch: conversation` acts like `latch: task`).
"""

from typing import NamedTuple

from pointsman.attempt import Attempt
from pointsman.evaluate import CompiledPolicy
from pointsman.steps import Steps, next_step
from rollout_app.backtest.tasks import Answer, Task


class Unrecorded(NamedTuple):
    """The policy asked a model without a recording for this task."""

    model: str


class Followed(NamedTuple):
    """The outcome of one task under the policy.

    success, cost_nusd, latency_ms   None if an answer on the way lacks it; the cost covers all attempts
    first, last                      catalogue names of the first model asked and of the one whose answer was used
    """

    success: bool | None
    cost_nusd: int | None
    latency_ms: float | None
    quality: float | None
    rule: str
    first: str
    last: str
    calls: int
    escalated: bool
    fell_back: bool
    retried: bool
    missing: tuple[str, ...]


def follow(policy: CompiledPolicy, task: Task) -> Followed | Unrecorded:
    """Follow the task under the policy, from the first model to the answer that is used."""
    route = policy.route(task.request)
    steps = Steps(route, 0.0)
    answers: dict[str, Answer] = {}
    cost: int | None = 0
    latency: float | None = 0.0
    while True:
        asked = steps.route
        answer = task.answers.get(asked.model)
        if answer is None:
            return Unrecorded(asked.model)
        answers[asked.alias] = answer
        cost = None if cost is None or answer.cost_nusd is None else cost + answer.cost_nusd
        latency = None if latency is None or answer.latency_ms is None else latency + answer.latency_ms
        step = next_step(policy, steps, _attempt(answer), task.request, None, {})
        if step.done:
            break
    used = answers[step.alias]
    failed = step.action == "stop"
    return Followed(
        success=False if failed else used.success,
        cost_nusd=cost,
        latency_ms=latency,
        quality=None if failed else used.quality,
        rule=route.rule,
        first=route.model,
        last=step.model,
        calls=steps.attempts,
        escalated=steps.escalations > 0,
        fell_back=steps.fallbacks > 0,
        retried=steps.retries > 0,
        missing=route.missing,
    )


def _attempt(answer: Answer) -> Attempt:
    return Attempt(
        ok=answer.error is None,
        error=answer.error,
        confidence=answer.confidence,
        # A budget counts known costs. The task's own cost is unknown after one unknown attempt.
        cost_nusd=answer.cost_nusd or 0,
        latency_ms=answer.latency_ms or 0.0,
    )
