"""Represent a decision as the evaluation of a feature flag, for OpenFeature and OFREP.

A workload is a flag. Its value is the model's catalogue name (a string), or an object with `model` and `params`. The
variant is the policy's own name of the model. The metadata contain the decision's id, which outcomes need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.decision import Decision
from pointsman.given import id_text

__all__ = ["UNITS", "inputs_of", "metadata_of", "object_of", "reason_of", "units_of"]

UNITS = ("request", "conversation", "user", "tenant")
_INPUTS = frozenset(
    {"task_type", "endpoint", "prompt_tokens", "retrieved_chunks", "tool_calls", "turns", "priority", "customer_tier",
     "language", "confidence"}
)  # fmt: skip


def inputs_of(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `request.*` inputs of an evaluation context; names that are not standard become attributes."""
    inputs: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for name, value in context.items():
        if name in _INPUTS:
            inputs[name] = value
        elif name == "attributes" and isinstance(value, Mapping):
            attributes |= value
        elif name not in UNITS and name != "targetingKey":
            attributes[name] = value
    return {**inputs, "attributes": attributes} if attributes else inputs


def units_of(targeting_key: str | None, context: Mapping[str, Any]) -> dict[str, str]:
    """Return the unit ids: named ones, and the targeting key for the workload's unit, whatever its kind."""
    common = id_text(targeting_key)
    found = {name: id_text(context.get(name)) or common for name in UNITS}
    return {name: unit for name, unit in found.items() if unit is not None}


def reason_of(decision: Decision) -> str:
    """Return OpenFeature's reason for the choice."""
    if decision.error:
        return "ERROR"
    if decision.rule == "pin":
        return "DISABLED"
    rollout = decision.assignment.rollout
    if rollout is not None and rollout.mode == "percentage":
        return "SPLIT"
    return "DEFAULT" if decision.rule == "default" else "TARGETING_MATCH"


def object_of(decision: Decision) -> dict[str, Any]:
    """Return the value as an object."""
    return {"model": decision.model, "params": dict(decision.params)}


def metadata_of(decision: Decision) -> dict[str, bool | int | float | str]:
    """Return the decision's metadata for an outcome, a span or a log line."""
    found: dict[str, bool | int | float | str] = {
        "decision_id": decision.decision_id,
        "workload": decision.workload,
        "version": decision.version,
        "arm": decision.arm,
        "rule": decision.rule,
        "reason": decision.reason,
    }
    if decision.rollout is not None:
        found["rollout"] = decision.rollout
    return found
