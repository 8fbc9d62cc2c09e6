"""The format's shape as JSON Schema (2020-12).

The validator uses this table as well, so the two cannot disagree.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pointsman.attempt import ANSWERED_BADLY, UNREACHABLE
from pointsman.conditions.parser import MAX_LENGTH

__all__ = ["NAME", "RESERVED_RULES", "SCHEMA", "json_schema"]

# Values of a decision's `rule` when no rule of the policy matched.
RESERVED_RULES = ("default", "fallback", "guard", "latch", "pin")

# Of a workload, an alias, a rule. The control plane accepts no workload with another name.
NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
_KINDS = [kind for kind in (*UNREACHABLE, *ANSWERED_BADLY) if kind != "unknown_model"]


def _object(required: list[str], properties: dict[str, Any], about: str) -> dict[str, Any]:
    return {
        "type": "object", "description": about, "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def _whole(low: int, high: int, about: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "description": about}


def _alias(about: str) -> dict[str, Any]:
    return {"type": "string", "pattern": NAME, "description": about}


def _condition(about: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "description": about}


def _kinds(about: str) -> dict[str, Any]:
    return {"type": "array", "items": {"enum": _KINDS}, "uniqueItems": True, "description": about}


_MODEL = _object(
    ["model"],
    {
        "model": {
            "type": "string",
            "minLength": 1,
            "maxLength": 200,
            "description": "The model's name in the catalogue.",
        },
        "params": {"type": "object", "description": "Passed to the model unchanged."},
    },
    "A model of the catalogue, under the policy's own name for it.",
)
_INPUT = _object(
    ["type"],
    {
        "type": {"enum": ["string", "int", "number", "bool"]},
        "default": {
            "type": ["string", "number", "boolean"],
            "description": "The value if the router provides none.",
        },
        "note": {"type": "string", "maxLength": 500},
    },
    "An input of this workload. Conditions use it as request.attributes.<name>.",
)
_RULE = _object(
    ["id", "when", "use"],
    {
        "id": {
            "type": "string",
            "pattern": NAME,
            "description": "The rule's id, which should stay the same from version to version.",
        },
        "when": _condition("The rule matches if this condition is certainly true."),
        "use": _alias("The model for matching requests."),
        "note": {"type": "string", "maxLength": 500, "description": "Why the rule exists."},
    },
    "The first matching rule chooses the model.",
)
_ESCALATE = _object(
    ["to"],
    {
        "max": _whole(0, 3, "The most escalations per task. Default: 1."),
        "to": _alias("The stronger model."),
        "on": _kinds("Failures that escalate. `error` covers all failures to reach the model."),
        "when": _condition("The task escalates if this condition is certainly true after an answer."),
        "missing_confidence": {
            "enum": ["accept", "escalate"],
            "description": "What to do if the result of `when` is unknown. Default: accept.",
        },
        "latch": {
            "enum": ["task", "conversation"],
            "description": "How long an escalation lasts. Default: task.",
        },
    },
    "The second stage: what to do if the answer was not good enough.",
)
_RETRY = _object(
    ["attempts"],
    {
        "attempts": _whole(0, 5, "The most retries per model."),
        "on": _kinds("Failures that are retried. `error` covers all failures to reach the model."),
        "backoff_ms": _whole(
            0, 60_000, "Milliseconds before the first retry, doubled each time. Default: 0."
        ),
    },
    "How often to try the same model again.",
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Pointsman policy, format 1",
    **_object(
        ["format", "workload", "models", "default", "fallback"],
        {
            "format": {"type": "integer", "const": 1},
            "workload": {"type": "string", "pattern": NAME},
            "models": {
                "type": "object", "minProperties": 1, "maxProperties": 50, "additionalProperties": _MODEL,
                "propertyNames": {"pattern": NAME},
                "description": "Models under the policy's own names, weakest first.",
            },
            "rank": {
                "type": "array", "items": {"type": "string"}, "uniqueItems": True,
                "description": "The names under `models`, weakest first. Default: the order of `models`.",
            },
            "inputs": {
                "type": "object", "maxProperties": 100, "additionalProperties": _INPUT,
                "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,62}$"},
            },
            "rules": {"type": "array", "items": _RULE, "maxItems": 50},
            "default": _alias("The model if no rule matches."),
            "escalate": _ESCALATE,
            "fallback": {
                "type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 50,
                "uniqueItems": True,
                "description": "The models to try, in order, if the chosen one cannot be reached.",
            },
            "retry": _RETRY,
            "timeouts": _object(
                [],
                {
                    "attempt_ms": _whole(1, 86_400_000, "The limit for one call. Default: no limit."),
                    "total_ms": _whole(1, 86_400_000, "The limit for the whole task. Default: no limit."),
                },
                "Time limits in milliseconds.",
            ),
            "budget": _object(
                ["max_cost_per_task_nusd"],
                {"max_cost_per_task_nusd": _whole(1, 10**15, "The limit in nano-US-dollars.")},
                "The cost limit of a task. An attempt that would exceed it is skipped and counted.",
            ),
            "batch": {
                "type": "boolean",
                "description": "Whether tasks may be deferred to a batch API. Default: false.",
            },
            "guard": _object(
                [],
                {
                    "on_evaluation_error": _alias("Used if the policy cannot be evaluated. Default: the strongest."),
                    "on_unknown_model": _alias(
                        "Used if the router does not know the chosen model. Default: the strongest."
                    ),
                },
                "The models to use if the policy cannot choose one.",
            ),
        },
        "Which model answers a request, and what happens if it fails or its answer is not good enough.",
    ),
}  # fmt: skip


def json_schema() -> dict[str, Any]:
    """Return the schema, for editors.

    It describes only the shape of a document; `validate` also checks names, conditions and consistency.
    """
    return deepcopy(SCHEMA)
