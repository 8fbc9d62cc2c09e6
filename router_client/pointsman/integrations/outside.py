"""Record attempts made by another program, such as a gateway with its own retries and fallbacks.

Normally `Decision.next` determines the next step. If another program does, its attempts are added afterwards, so that
retries, fallbacks and the cost of every attempt are part of the task's outcome.
"""

from __future__ import annotations

from pointsman.attempt import UNREACHABLE, Attempt, Next, error_kind
from pointsman.decision import Decision
from pointsman.evaluate import Route

__all__ = ["add_attempt", "finish", "turn_to"]


def turn_to(decision: Decision, model: str) -> None:
    """Note that the other program asked `model`, a catalogue name, before that attempt is added.

    The same model again is a retry; a different model after one that could not be reached is a fallback. A model
    that is not in the policy counts under its own name.
    """
    steps, route = decision.steps, _route(decision, model)
    if steps.attempts:
        if route.alias == steps.route.alias:
            steps.retries += 1
        elif steps.last is not None and error_kind(steps.last) in UNREACHABLE:
            steps.fallbacks += 1
    steps.route = route


def add_attempt(decision: Decision, attempt: Attempt) -> None:
    """Add a finished attempt of the model that was turned to."""
    decision.steps.add(attempt, decision.prices)


def finish(decision: Decision, *, answered: bool) -> None:
    """End the task with or without an answer, whatever the policy would have done."""
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
