"""The inputs that conditions may use: their types, ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

__all__ = ["FIRST_STAGE", "SECOND_STAGE", "Input", "Type", "Value", "declared"]

Type = Literal["string", "int", "double", "bool"]
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Input:
    """One input. `low` and `high` are inclusive bounds of its value; `values` lists all of them if there are few."""

    name: str
    type: Type
    low: float = -inf
    high: float = inf
    values: tuple[str, ...] = ()
    default: Value | None = None


def _table(*inputs: Input) -> dict[str, Input]:
    return {entry.name: entry for entry in inputs}


FIRST_STAGE: Mapping[str, Input] = _table(
    Input("request.task_type", "string"),
    Input("request.endpoint", "string"),
    Input("request.prompt_tokens", "int", low=0),
    Input("request.retrieved_chunks", "int", low=0),
    Input("request.tool_calls", "int", low=0),
    Input("request.turns", "int", low=0),
    Input("request.priority", "string", values=("low", "normal", "high", "critical")),
    Input("request.customer_tier", "string"),
    Input("request.language", "string"),
    Input("request.confidence", "double", low=0, high=1),
    Input("history.failure_rate", "double", low=0, high=1),
    Input("history.tasks", "int", low=0, high=200),
)
SECOND_STAGE: Mapping[str, Input] = {
    **FIRST_STAGE,
    **_table(
        Input("response.confidence", "double", low=0, high=1),
        Input("response.latency_ms", "double", low=0),
        Input("response.output_tokens", "int", low=0),
    ),
}
_DECLARED: Mapping[str, Type] = {"string": "string", "int": "int", "number": "double", "bool": "bool"}


def declared(inputs: Any, standard: Mapping[str, Input]) -> dict[str, Input]:
    """Return the standard inputs and the workload's own, `request.attributes.<name>`.

    Malformed entries are skipped.
    """
    known = dict(standard)
    for name, entry in inputs.items() if isinstance(inputs, Mapping) else ():
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if isinstance(kind, str) and kind in _DECLARED:
            full = f"request.attributes.{name}"
            known[full] = Input(full, _DECLARED[kind], default=entry.get("default"))
    return known
