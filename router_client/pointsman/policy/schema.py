"""The format's shape as JSON Schema (2020-12).

The validator uses this table as well, so the two cannot disagree.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pointsman.attempt import ANSWERED_BADLY, UNREACHABLE
from pointsman.conditions.parser import MAX_LENGTH

__all__ = ["RESERVED_RULES", "SCHEMA", "json_schema"]

# Values of a decision's `rule` when no rule of the policy matched.
RESERVED_RULES = ("default", "fallback", "guard", "latch", "pin")

_NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
_KINDS = [kind for kind in (*UNREACHABLE, *ANSWERED_BADLY) if kind != "unknown_model"]


def _object(required: list[str], properties: dict[str, Any], about: str) -> dict[str, Any]:
    return {
        "type": "object", "description": about, "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def _whole(low: int, high: int, about: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "description": about}


def _alias(about: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _NAME, "description": about}


def _condition(about: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "description": about}


def _kinds(about: str) -> dict[str, Any]:
    return {"type": "array", "items": {"enum": _KINDS}, "uniqueItems": True, "description": about}


_MODEL = _object(
    ["model"],
    {
        "model": {"type": "string", "minLength": 1, "maxLength": 200, "description": "the catalogue's name"},
        "params": {"type": "object", "description": "passed to the model as it is"},
    },
    "a model of the catalogue, under the policy's own name",
)
_INPUT = _object(
    ["type"],
    {
        "type": {"enum": ["string", "int", "number", "bool"]},
        "default": {
            "type": ["string", "number", "boolean"],
            "description": "its value when the router gives none",
        },
        "note": {"type": "string", "maxLength": 500},
    },
    "an input of this workload, request.attributes.<name>",
)
_RULE = _object(
    ["id", "when", "use"],
    {
        "id": {"type": "string", "pattern": _NAME, "description": "stable from version to version"},
        "when": _condition("the rule matches when this certainly holds"),
        "use": _alias("the model for requests that match"),
        "note": {"type": "string", "maxLength": 500, "description": "why the rule is there"},
    },
    "the first rule that matches decides",
)
_ESCALATE = _object(
    ["to"],
    {
        "max": _whole(0, 3, "escalations per task (1)"),
        "to": _alias("the stronger model"),
        "on": _kinds("failures that escalate; `error` covers every way of not being reached"),
        "when": _condition("escalate when this certainly holds of the answer"),
        "missing_confidence": {
            "enum": ["accept", "escalate"],
            "description": "when `when` is not known (accept)",
        },
        "latch": {"enum": ["task", "conversation"], "description": "how long it stays escalated (task)"},
    },
    "the second stage: the answer was not good enough",
)
_RETRY = _object(
    ["attempts"],
    {
        "attempts": _whole(0, 5, "retries of one model"),
        "on": _kinds("failures that are retried"),
        "backoff_ms": _whole(0, 60_000, "the first wait; it doubles each time (0)"),
    },
    "the same model again",
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Pointsman policy, format 1",
    **_object(
        ["format", "workload", "models", "default", "fallback"],
        {
            "format": {"type": "integer", "const": 1},
            "workload": {"type": "string", "pattern": _NAME},
            "models": {
                "type": "object", "minProperties": 1, "maxProperties": 50, "additionalProperties": _MODEL,
                "propertyNames": {"pattern": _NAME}, "description": "the policy's own names, weakest first",
            },
            "rank": {
                "type": "array", "items": {"type": "string"}, "uniqueItems": True,
                "description": "the names under `models`, weakest first (as written)",
            },
            "inputs": {
                "type": "object", "maxProperties": 100, "additionalProperties": _INPUT,
                "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,62}$"},
            },
            "rules": {"type": "array", "items": _RULE, "maxItems": 50},
            "default": _alias("the model when no rule matches"),
            "escalate": _ESCALATE,
            "fallback": {
                "type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 50,
                "uniqueItems": True, "description": "the chosen model cannot be reached: try these, in order",
            },
            "retry": _RETRY,
            "timeouts": _object(
                [],
                {
                    "attempt_ms": _whole(1, 86_400_000, "one call (no limit)"),
                    "total_ms": _whole(1, 86_400_000, "the whole task (no limit)"),
                },
                "milliseconds",
            ),
            "budget": _object(
                ["max_cost_per_task_nusd"],
                {"max_cost_per_task_nusd": _whole(1, 10**15, "nano-US-dollars")},
                "an attempt that would pass it is not made, and is counted",
            ),
            "batch": {"type": "boolean", "description": "may be deferred to a batch API (false)"},
            "guard": _object(
                [],
                {
                    "on_evaluation_error": _alias("when the policy cannot be evaluated (the strongest)"),
                    "on_unknown_model": _alias("when the chosen model is not known (the strongest)"),
                },
                "what answers when the policy cannot",
            ),
        },
        "which model answers a request, and what follows when it does not do well",
    ),
}  # fmt: skip


def json_schema() -> dict[str, Any]:
    """Return the schema, for editors.

    It describes only the shape of a document; `validate` also checks names, conditions and consistency.
    """
    return deepcopy(SCHEMA)
