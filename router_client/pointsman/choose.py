"""Choose the model for a task: the arm, the route and its overrides, and whether the policies differ on the task."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pointsman.assignment import WorkloadAssignment
from pointsman.bucketing import bucket
from pointsman.comparison import AGREE, SAME, Comparison
from pointsman.decision import Decision
from pointsman.evaluate import CompiledPolicy, Route
from pointsman.history import DifferingUnits, Memory, Window

__all__ = ["decide"]

_NOTHING: Mapping[str, Any] = {}


def decide(
    assignment: WorkloadAssignment,
    request: Mapping[str, Any] | None,
    unit_ids: Mapping[str, str] | None = None,
    memory: Memory | None = None,
    available: Container[str] | None = None,
) -> Decision:
    """Choose the model for one task. Never raises, takes no lock, uses no network.

    request    the known `request.*` inputs: `{"prompt_tokens": 12, "attributes": {…}}`
    unit_ids   ids by kind: `request`, `conversation`, `user`, `tenant`
    memory     what the process remembers; None for nothing
    available  catalogue names that can be called; any other choice is replaced by `guard.on_unknown_model`
    """
    decision = Decision(
        assignment,
        assignment.baseline,
        request if type(request) is dict else _mapping(request),
        unit_ids if type(unit_ids) is dict else _mapping(unit_ids),
        memory,
    )
    try:
        if assignment.pinned is not None:
            decision.route = assignment.pinned
            decision.differing = AGREE if assignment.comparison is not None else None
        elif assignment.comparison is not None:
            _choose_in_rollout(assignment, assignment.comparison, decision, memory, available)
        else:
            _choose(assignment, decision, memory, available)
    except Exception as error:  # The caller's request must not fail because routing did.
        decision.side, decision.differing = assignment.baseline, None
        decision.route = assignment.baseline.policy.broken(error)
    return decision


def _choose(
    assignment: WorkloadAssignment,
    decision: Decision,
    memory: Memory | None,
    available: Container[str] | None,
) -> None:
    """Choose outside a rollout or at `full`, where only one policy serves and there is no other to compare with."""
    if assignment.rollout is not None and assignment.candidate is not None:
        decision.side = assignment.candidate
    policy = decision.side.policy
    route = policy.route(decision.request, _window(decision, memory) if policy.uses_history else None)
    if policy.latched is not None or available is not None:
        held = policy.latched is not None and _held(assignment, decision, memory)
        route = _overridden(policy, route, held, available)
    decision.route = route


def _choose_in_rollout(
    assignment: WorkloadAssignment,
    comparison: Comparison,
    decision: Decision,
    memory: Memory | None,
    available: Container[str] | None,
) -> None:
    rollout, side, candidate = assignment.rollout, assignment.baseline, assignment.candidate
    if rollout is None or candidate is None:
        raise TypeError("a comparison without a rollout")
    window = _window(decision, memory) if comparison.uses_history else None
    if rollout.mode == "percentage":
        unit = decision.unit_ids.get(assignment.unit)
        if type(unit) is str and unit and not unit.isspace():
            decision._unit = unit
        else:
            unit = decision.unit
        number = bucket(rollout.salt, unit)
        if number < rollout.share_pcm:
            decision.side = side = candidate
        route = side.policy.route(decision.request, window)
        shared = comparison.shared[side.arm].get(route.rule)
        if shared is None or shared[2] is not None:
            differing, other = comparison.counterpart(side.arm, route, decision.request, window)
        else:
            differing, other, _ = shared
    else:
        route = side.policy.route(decision.request, window)
        differing, other = comparison.evaluated(side.arm, route, decision.request, window)
    decision.route, decision.other, decision.differing = route, other, differing
    if available is not None or comparison.latches:
        _override_both(assignment, comparison, decision, other, memory, available)
    if comparison.remembers and memory is not None and rollout.mode == "percentage":
        _remember(decision, memory.differing, rollout.id, differing)


def _override_both(
    assignment: WorkloadAssignment,
    comparison: Comparison,
    decision: Decision,
    other: Route,
    memory: Memory | None,
    available: Container[str] | None,
) -> None:
    """Apply overrides to both choices, so that the policies are compared by what they would do."""
    held = comparison.latches and _held(assignment, decision, memory)
    mine, theirs = decision.side.policy, comparison.other(decision.side.arm)
    decision.route = route = _overridden(mine, decision.route, held, available)
    decision.other = other = _overridden(theirs, other, held, available)
    decision.differing = comparison.of(decision.side.arm, route, other)


def _remember(decision: Decision, units: DifferingUnits, rollout: str, stateless: str) -> None:
    """Mark a unit that meets a differing task; it differs from then on. Its route pair comes from the bare choices."""
    if not (decision.differing or units.any):
        return
    unit = decision.lasting_unit
    if unit is None:
        return
    # Without overrides, a differing task differs whatever happened to the unit before.
    certain = stateless and stateless == decision.differing
    if not certain and units.holds(rollout, unit):
        decision.differing = stateless or SAME
        return
    if decision.differing:
        units.mark(rollout, unit)


def _overridden(policy: CompiledPolicy, route: Route, held: bool, available: Container[str] | None) -> Route:
    if held and policy.latched is not None and policy.stronger(policy.latched.alias, route.alias):
        route = policy.latched
    if available is not None and route.model not in available:
        route = policy.unknown_model(route)
    return route


def _held(assignment: WorkloadAssignment, decision: Decision, memory: Memory | None) -> bool:
    """Return whether the task's conversation was escalated earlier."""
    conversation = decision.conversation
    return (
        memory is not None and conversation is not None and memory.latch.holds(assignment.name, conversation)
    )


def _window(decision: Decision, memory: Memory | None) -> Window | None:
    if memory is None:
        return None
    decision.window = window = memory.history.get((decision.assignment.name, decision.endpoint))
    return window


def _mapping(values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the caller's argument if it is a mapping, otherwise an empty one."""
    try:
        return values if isinstance(values, Mapping) else _NOTHING
    except Exception:  # A proxy object whose target is gone raises even on isinstance.
        return _NOTHING
