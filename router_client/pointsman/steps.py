"""The second stage: the step that follows an attempt.

The first of these that applies is taken: 1. accept an answer that is good enough; 2. make no further attempt if the
total timeout or the task's budget is spent; 3. retry the same model if it could not be reached for a reason in
`retry.on`; 4. fall back to the next model if it could not be reached; 5. escalate to the stronger model if the answer
was not good enough (or no other model could be reached).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from pointsman.attempt import UNREACHABLE, Action, Attempt, Next, error_kind
from pointsman.costs import NO_PRICES, CostInvalid, Prices, Usage, cost_of
from pointsman.evaluate import CompiledPolicy, Route
from pointsman.given import is_flag
from pointsman.history import Window

__all__ = ["Steps", "Tried", "ended", "next_step"]


class Tried(NamedTuple):
    """A finished attempt: the catalogue's model, its cost in nano-USD and its time in ms, None if unknown."""

    model: str
    cost_nusd: int | None
    latency_ms: float | None
    error: str | None
    confidence: float | None


class Steps:
    """The state of one task, from its first attempt to its end.

    route        the model currently asked (`alias`, `model`, `params`)
    attempts, retries, fallbacks, escalations   counts
    retried      retries of the model currently asked
    cost_nusd    sum over the attempts whose cost is known
    unpriced     number of attempts whose cost is unknown
    awaited      whether the last step asked for a call that was not reported yet
    cost_problem why a given cost was invalid, or None
    expected_problem   why an expected cost was invalid, or None
    took_ms      duration of the last attempt
    latency_ms   duration of all attempts, including the waits between them
    models       attempts by the policy's own model names
    errors       failures by kind
    unreachable  models that could not be reached in this task
    answer       the last model whose answer was usable, though not good enough
    blocked      `budget` or `timeout` if one of them prevented an attempt, otherwise None
    last         the last attempt
    trail        all attempts, in order
    done         the final step once the task has ended
    """

    __slots__ = (
        "answer", "attempts", "awaited", "blocked", "cost_nusd", "cost_problem", "done", "errors", "escalations",
        "expected_problem", "fallbacks", "last", "latency_ms", "models", "retried", "retries", "route", "since",
        "took_ms", "trail", "unpriced", "unreachable", "waited",
    )  # fmt: skip

    def __init__(self, route: Route, started: float) -> None:
        self.route = route
        self.attempts = self.retries = self.fallbacks = self.escalations = self.retried = 0
        self.cost_nusd = self.unpriced = 0
        self.awaited = False
        self.cost_problem: str | None = None
        self.expected_problem: str | None = None
        self.latency_ms = self.took_ms = 0.0
        self.models: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.unreachable: set[str] = set()
        self.answer: Route | None = None
        self.blocked: str | None = None
        self.last: Attempt | None = None
        self.trail: list[Tried] = []
        self.done: Next | None = None
        self.since = started
        self.waited = 0

    def add(self, attempt: Attempt, prices: Prices, took_ms: float | None = None) -> str | None:
        """Add a finished attempt and return its kind of failure, as `error_kind` does.

        `took_ms` is its duration if it was measured already.
        """
        self._count()
        now = monotonic()
        took = _milliseconds(attempt.latency_ms) if took_ms is None else took_ms
        self.took_ms = max(0.0, (now - self.since) * 1000 - self.waited) if took is None else took
        self.latency_ms += self.took_ms
        self.since = now
        return self._describe(attempt, prices, self.took_ms)

    def complete(self, usage: Usage | None, error: str | None, prices: Prices) -> bool:
        """Add the call that the last step asked for, if the task ends without a report of it. Return whether it did.

        It was made, or the task would have no answer, so its cost belongs to the task's. Only its tokens and the
        error may be known.
        """
        if not self.awaited:
            return False
        self._count()
        self._describe(Attempt(ok=error is None, error=error, usage=usage), prices, None)
        return True

    def _count(self) -> None:
        """Count an attempt, of unknown cost for the time being: one that cannot be read was made nevertheless."""
        self.awaited, self.last = False, None
        self.attempts += 1
        self.unpriced += 1
        self.models[self.route.alias] = self.models.get(self.route.alias, 0) + 1

    def _describe(self, attempt: Attempt, prices: Prices, took_ms: float | None) -> str | None:
        kind = error_kind(attempt)
        cost = self._add_cost(attempt, prices)
        self.trail.append(Tried(self.route.model, cost, took_ms, kind, attempt.confidence))
        self.last = attempt
        if kind is not None:
            self.errors[kind] = self.errors.get(kind, 0) + 1
        return kind

    def _add_cost(self, attempt: Attempt, prices: Prices) -> int | None:
        try:
            cost = cost_of(attempt.cost_nusd, attempt.cost_usd, attempt.usage, self.route.model, prices)
        except CostInvalid as error:
            cost, self.cost_problem = None, str(error)
        if cost is not None:
            self.unpriced -= 1
            self.cost_nusd += cost
        return cost


def next_step(
    policy: CompiledPolicy,
    steps: Steps,
    attempt: Attempt,
    request: Mapping[str, Any],
    history: Window | None,
    costs: Mapping[str, int],
    available: Container[str] | None = None,
    *,
    prices: Prices = NO_PRICES,
    took_ms: float | None = None,
) -> Next:
    """Add the finished attempt and return the next step. The module's docstring gives the order.

    `request` and `history` are those of the first stage; `costs` (nano-US-dollars by alias) and `available` are as in
    `Decision.next`, `took_ms` as in `Steps.add`.
    """
    kind = steps.add(attempt, prices, took_ms)
    complaint = _complaint(policy, steps, attempt, kind, request, history)
    if not complaint.code:
        return _end(steps, "accept", steps.route, "good_enough", complaint.why)
    search = _Search(policy, steps, kind, complaint, costs, available)
    if search.spent():
        return search.end()
    return search.retry() or search.fallback() or search.escalate() or search.end()


def ended(steps: Steps, attempt: Attempt, error: Exception) -> Next:
    """Return the end of a task whose bookkeeping failed: an answer is accepted, a failure stops the task."""
    action: Action = "stop"
    why = f"the next step could not be determined ({type(error).__name__})"
    # A caller's own attempt object may raise on every access, and so may its error.
    with suppress(Exception):
        action = "accept" if attempt.ok is True else "stop"
        why = f"the next step could not be determined ({type(error).__name__}: {error})"
    return _end(steps, action, steps.route, "internal_error", why)


class _Complaint(NamedTuple):
    """What is wrong with an attempt; an empty code means nothing."""

    code: str
    why: str


def _complaint(
    policy: CompiledPolicy,
    steps: Steps,
    attempt: Attempt,
    kind: str | None,
    request: Mapping[str, Any],
    history: Window | None,
) -> _Complaint:
    alias, escalate = steps.route.alias, policy.escalate
    if kind is not None:
        verb = "could not be reached" if kind in UNREACHABLE else "gave no usable answer"
        return _Complaint(kind, f"{alias} {verb} ({kind})")
    if escalate is None or escalate.when is None:
        return _Complaint("", f"{alias} answered")
    if steps.route.rule == "pin" or not policy.stronger(escalate.to, alias):
        return _Complaint("", f"{alias} answered, and the policy has no stronger model")
    uncertain = escalate.when(request, attempt.as_inputs(), history)
    if uncertain is True:
        return _Complaint("uncertain", f"{alias} answered, but {escalate.when.text}")
    if uncertain is False or escalate.missing_confidence == "accept":
        return _Complaint("", f"{alias} answered, and no escalation is needed")
    return _Complaint(
        "confidence_missing", f"{alias} answered, but the result of {escalate.when.text} is unknown"
    )


class _Search:
    """The search for the next attempt after one that was not good enough."""

    def __init__(
        self,
        policy: CompiledPolicy,
        steps: Steps,
        kind: str | None,
        complaint: _Complaint,
        costs: Mapping[str, int],
        available: Container[str] | None,
    ) -> None:
        self.policy, self.steps, self.kind, self.complaint = policy, steps, kind, complaint
        self.costs, self.available = costs, available
        self.refusal: tuple[str, str] | None = None
        if kind is None:
            steps.answer = steps.route

    def spent(self) -> bool:
        """Return whether the task has no time or budget left."""
        total, most = self.policy.timeouts.get("total_ms"), self.policy.max_cost_nusd
        if total is not None and self.steps.latency_ms >= total:
            return self._refuse("timeout", f"the total timeout of {total} ms has expired")
        if most is not None and self.steps.cost_nusd >= most:
            return self._refuse("budget", f"the budget of {most} nano-dollars is spent")
        return False

    def retry(self) -> Next | None:
        """Try the same model again if `retry.on` includes the failure and attempts are left."""
        retry, steps = self.policy.retry, self.steps
        if self.kind is None or not _names(retry.on, self.kind) or steps.retried >= retry.attempts:
            return None
        delay = retry.backoff_ms << steps.retried
        if not self._callable(steps.route) or not self._affordable(steps.route, delay):
            return None
        steps.retries += 1
        steps.retried += 1
        return self._go("retry", steps.route, f"retry {steps.retried} of {retry.attempts}", delay)

    def fallback(self) -> Next | None:
        """Try another model if this one could not be reached: the first in order that was not yet asked."""
        steps, policy = self.steps, self.policy
        if self.kind not in UNREACHABLE or steps.route.rule == "pin":
            return None
        steps.unreachable.add(steps.route.alias)
        first = (policy.guard_unknown,) if self.kind == "unknown_model" else ()
        for alias in (*first, *policy.fallback):
            route = policy.routes[alias]
            if alias not in steps.models and self._callable(route) and self._affordable(route):
                steps.fallbacks += 1
                return self._go("fallback", route, f"falling back to {alias}")
        return None

    def escalate(self) -> Next | None:
        """Try the stronger model if the answer was not good enough or `escalate.on` includes the failure."""
        steps, escalate = self.steps, self.policy.escalate
        if escalate is None or steps.escalations >= escalate.max or steps.route.rule == "pin":
            return None
        if self.kind is not None and not _names(escalate.on, self.kind):
            return None
        route = self.policy.routes[escalate.to]
        if not self.policy.stronger(route.alias, steps.route.alias) or route.alias in steps.unreachable:
            return None
        if not self._callable(route) or not self._affordable(route):
            return None
        steps.escalations += 1
        return self._go("escalate", route, f"escalating to {route.alias}")

    def end(self) -> Next:
        """Make no further attempt: use the answer so far, even an earlier one, or report the failure."""
        why = self.complaint.why
        if self.refusal is not None:
            self.steps.blocked = self.refusal[0]
            code, because = self.refusal
        else:
            code, because = "no_option", "the policy has no other model to try"
        answer = self.steps.answer
        if answer is None:
            return _end(self.steps, "stop", self.steps.route, code, f"{why}; {because}")
        if answer is not self.steps.route:
            because += f"; the earlier answer of {answer.alias} is used"
        return _end(self.steps, "accept", answer, code, f"{why}; {because}")

    def _refuse(self, code: str, because: str) -> bool:
        self.refusal = self.refusal or (code, because)
        return True

    def _callable(self, route: Route) -> bool:
        return self.available is None or route.model in self.available

    def _affordable(self, route: Route, delay_ms: int = 0) -> bool:
        """Return whether the attempt fits into the time limit and, if its cost is known, into the budget.

        A refusal is kept as the reason.
        """
        total, most = self.policy.timeouts.get("total_ms"), self.policy.max_cost_nusd
        if total is not None and self.steps.latency_ms + delay_ms >= total:
            return not self._refuse(
                "timeout", f"waiting {delay_ms} ms would exceed the total timeout of {total} ms"
            )
        if most is not None and self.steps.cost_nusd + self.costs.get(route.alias, 0) > most:
            return not self._refuse(
                "budget", f"asking {route.alias} would exceed the budget of {most} nano-dollars"
            )
        return True

    def _go(self, action: Action, route: Route, what: str, delay_ms: int = 0) -> Next:
        steps, timeouts = self.steps, self.policy.timeouts
        if action != "retry":
            steps.retried = 0
        steps.route, steps.awaited = route, True
        steps.latency_ms += delay_ms
        steps.waited = delay_ms
        total = timeouts.get("total_ms")
        left = [round(total - steps.latency_ms)] if total is not None else []
        limits = [*left, *([timeouts["attempt_ms"]] if "attempt_ms" in timeouts else [])]
        return Next(
            action, route.alias, route.model, route.params, self.complaint.code,
            f"{self.complaint.why}; {what}", delay_ms, max(1, min(limits)) if limits else None,
        )  # fmt: skip


def _milliseconds(given: object) -> float | None:
    """Return a duration; None for one that cannot be used, such as NaN, or a negative one after a clock was set back.

    The time is then measured here: an unusable figure must not cost the task its retry or its fallback.
    """
    if given is None or isinstance(given, str | bytes) or is_flag(given):
        return None
    try:
        number = float(given)  # type: ignore[arg-type]  # whatever the caller gave
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < inf else None


def _names(kinds: Container[str], kind: str) -> bool:
    """Return whether a policy's list covers a kind; `error` covers all kinds of unreachable."""
    return kind in kinds or (kind in UNREACHABLE and "error" in kinds)


def _end(steps: Steps, action: Action, route: Route, code: str, why: str) -> Next:
    steps.awaited = False
    steps.done = Next(action, route.alias, route.model, route.params, code, why)
    return steps.done
