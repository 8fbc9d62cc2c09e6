"""Attempts that another program made: a gateway that retries and falls back by its own rules.

`Decision.next` says what to do next. Where somebody else decides that, what they did is entered afterwards, so that
retries, fallbacks and the cost of every attempt are in the task's one outcome.
"""

from __future__ import annotations

from pointsman.attempt import UNREACHABLE, Attempt, Next, error_kind
from pointsman.decision import Decision
from pointsman.evaluate import Route

__all__ = ["enter_attempt", "finish"]


def enter_attempt(decision: Decision, model: str, attempt: Attempt) -> None:
    """Enter one ended attempt of `model`, a catalogue name. The same model again is a retry; another one after one that
    could not be reached is a fallback. A model that the policy does not name counts under its own name."""
    steps = decision.steps
    if steps.done is not None:
        return
    route = _route(decision, model)
    if steps.attempts:
        if route.alias == steps.route.alias:
            steps.retries += 1
        elif steps.last is not None and error_kind(steps.last) in UNREACHABLE:
            steps.fallbacks += 1
    steps.route = route
    steps.add(attempt, error_kind(attempt), decision.prices)


def finish(decision: Decision, *, answered: bool) -> None:
    """The task has ended, with an answer or without one, whatever the policy would have done."""
    steps = decision.steps
    if steps.done is None:
        route, action = steps.route, "accept" if answered else "stop"
        why = f"the gateway ended the task with {route.alias}"
        steps.done = Next(action, route.alias, route.model, route.params, "gateway", why)  # type: ignore[arg-type]


def _route(decision: Decision, model: str) -> Route:
    policy = decision.side.policy
    for alias, (name, _) in policy.models.items():
        if name == model:
            return policy.routes[alias]
    return Route("gateway", model, model, {}, (), f"the gateway asked {model}", False)
