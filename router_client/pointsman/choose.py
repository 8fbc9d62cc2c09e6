"""Chooses the model for one task: arm, then route, then what overrides it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pointsman.assignment import WorkloadAssignment
from pointsman.bucketing import bucket, mirrored
from pointsman.decision import Decision
from pointsman.evaluate import CompiledPolicy, Route
from pointsman.history import FailureHistory, LatchMemory

__all__ = ["decide"]

_NOTHING: Mapping[str, Any] = {}


def decide(
    assignment: WorkloadAssignment,
    request: Mapping[str, Any] | None,
    unit_ids: Mapping[str, str] | None = None,
    *,
    history: FailureHistory | None = None,
    latch: LatchMemory | None = None,
    available: Container[str] | None = None,
) -> Decision:
    """Choose the model for one task. Never raises, takes no lock, touches no network.

    request    the `request.*` inputs: `{"prompt_tokens": 12, "attributes": {…}}`, what is known of them
    unit_ids   ids by kind: `request`, `conversation`, `user`, `tenant`
    history    the process's failure history, for policies that ask for it
    latch      the process's memory of escalated conversations
    available  catalogue names that can be called; for a choice outside `guard.on_unknown_model` answers
    """
    decision = Decision(assignment, assignment.baseline, _mapping(request), _mapping(unit_ids), latch)
    try:
        _choose(assignment, decision, history)
        if latch is not None or available is not None:
            _override(assignment, decision, latch, available)
    except Exception as error:  # The caller's request must not fail because routing did.
        decision.side = assignment.baseline
        decision.route = assignment.baseline.policy.broken(error)
    return decision


def _choose(assignment: WorkloadAssignment, decision: Decision, history: FailureHistory | None) -> None:
    if assignment.pinned is not None:
        decision.route = assignment.pinned
        return
    rollout, candidate = assignment.rollout, assignment.candidate
    if rollout is not None and candidate is not None:
        if rollout.mode == "percentage":
            decision._bucket = bucket(rollout.salt, decision.unit)
            if decision._bucket < rollout.share_pcm:
                decision.side = candidate
        elif rollout.mode == "full":
            decision.side = candidate
        else:
            decision.shadow = _route(candidate.policy, decision, history)
            decision.mirror = mirrored(rollout.mirror_pcm, rollout.salt, decision.unit)
    decision.route = _route(decision.side.policy, decision, history)


def _override(
    assignment: WorkloadAssignment,
    decision: Decision,
    latch: LatchMemory | None,
    available: Container[str] | None,
) -> None:
    if assignment.pinned is not None:
        return
    policy = decision.side.policy
    conversation = decision.unit_ids.get("conversation")
    if latch is not None and policy.latched is not None and conversation is not None:
        stronger = policy.stronger(policy.latched.alias, decision.route.alias)
        if stronger and latch.holds(assignment.name, str(conversation)):
            decision.route = policy.latched
    if available is not None and decision.route.model not in available:
        decision.route = policy.unknown_model(decision.route)


def _mapping(values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the caller gave, if it is a mapping; else nothing is known."""
    if type(values) is dict:
        return values
    try:
        return values if isinstance(values, Mapping) else _NOTHING
    except Exception:  # A proxy object whose target is gone cannot even say what it is.
        return _NOTHING


def _route(policy: CompiledPolicy, decision: Decision, history: FailureHistory | None) -> Route:
    if history is None or not policy.uses_history:
        return policy.route(decision.request)
    decision._history = history.window(decision.workload, decision.endpoint)
    return policy.route(decision.request, decision._history)
