"""What may be written or sent of a request: figures, and names from short lists. Never text.

`figures_of` selects on the router; `problem_of` is what a control plane refuses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["figures_of", "number", "problem_of"]

NAMES = (
    "task_type",
    "endpoint",
    "priority",
    "customer_tier",
    "language",
)  # the standard inputs of type string
FIGURES = ("prompt_tokens", "retrieved_chunks", "tool_calls", "turns", "confidence")
ATTRIBUTES = "attributes"
LONGEST = 64  # characters of a string; an endpoint may have 200, as in the buckets
LONGEST_ENDPOINT = 200
MOST = 50  # attributes per task
_HIGHEST = 2**53  # beyond this, JSON parsers lose digits


def figures_of(
    given: Mapping[str, Any], endpoint: str, attributes: frozenset[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the request's known inputs, and the names of those withheld because they may be text.

    attributes   the attributes whose strings are names from a short list; figures are always returned
    """
    withheld = list[str]()
    found: dict[str, Any] = {}
    for name in (*NAMES, *FIGURES):
        value = endpoint if name == "endpoint" else given.get(name)
        if value is None or value == "":
            continue
        kept = word(value, _longest(name)) if name in NAMES else number(value)
        if kept is None:
            withheld.append(name)
        else:
            found[name] = kept
    own = given.get(ATTRIBUTES)
    known: dict[str, Any] = {}
    for name, value in list(own.items())[:MOST] if isinstance(own, Mapping) else ():
        kept = number(value)
        if kept is None and name in attributes:
            kept = word(value, LONGEST)
        if word(name, LONGEST) is None:
            continue
        if kept is None:
            withheld.append(f"attributes.{name}")
        else:
            known[name] = kept
    if known:
        found[ATTRIBUTES] = known
    return found, withheld


def problem_of(request: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (field, reason) of the first value that is neither a figure nor a name; None if there is none."""
    for name, value in request.items():
        if name == ATTRIBUTES:
            if not isinstance(value, Mapping) or len(value) > MOST:
                return name, f"an object with at most {MOST} attributes"
            for inner, each in value.items():
                if word(inner, LONGEST) is None:
                    return name, f"each attribute must be called by {_name(LONGEST)}"
                if number(each) is None and word(each, LONGEST) is None:
                    return f"{name}.{inner}", f"a number, or {_name(LONGEST)}"
        elif name in NAMES:
            if word(value, _longest(name)) is None:
                return name, _name(_longest(name))
        elif name not in FIGURES:
            return name[:LONGEST], "not an input that may be sampled"
        elif number(value) is None:
            return name, "a finite number"
    return None


def number(value: object) -> float | bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_HIGHEST <= value <= _HIGHEST else None
    return float(value) if isinstance(value, float) and math.isfinite(value) else None


def word(value: object, longest: int) -> str | None:
    """Return the string if it is a name rather than text: short, on one line, without spaces; otherwise None."""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable() or " " in value:
        return None
    return str(value)


def _longest(name: str) -> int:
    return LONGEST_ENDPOINT if name == "endpoint" else LONGEST


def _name(longest: int) -> str:
    return f"a name of at most {longest} printable characters without spaces"
