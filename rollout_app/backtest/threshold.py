"""Sweep one threshold: the same policy with different numbers in one condition."""

import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pointsman.evaluate import CompiledPolicy, compile_policy
from rollout_app.backtest.run import MAX_POLICIES, Backtest, Line

# A separate number: not part of a name, and not inside a string literal (those are blanked out beforehand).
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")


def swept(document: Mapping[str, Any], place: str, values: Sequence[float]) -> dict[str, CompiledPolicy]:
    """Return the document compiled once for each value, by the value's text.

    place  `escalate` for the second stage's condition, or the id of a rule
    Raises `ValueError` if the condition does not hold exactly one number, `PolicyInvalid` for a value that makes the
    document invalid.
    """
    condition = _condition(document, place)
    span = _only_number(condition, place)
    policies = {}
    for value in values:
        changed = deepcopy(dict(document))
        text = f"{value:.15g}"  # all digits: two values must not become one policy
        _set(changed, place, f"{condition[: span[0]]}{text}{condition[span[1] :]}")
        policies[text] = compile_policy(changed)
    if len(policies) < len(values):
        raise ValueError("The steps of the sweep are too small to tell apart: at most 10 decimal places.")
    return policies


def policies_of(documents: Mapping[str, Mapping[str, Any]], sweep: str = "") -> dict[str, CompiledPolicy]:
    """Compile the documents by name; with a sweep (`PLACE:LOW:HIGH:STEPS`), the single one for each value."""
    if not sweep:
        return {name: compile_policy(document) for name, document in documents.items()}
    if len(documents) != 1:
        raise ValueError("A sweep takes one policy.")
    place, *numbers = sweep.rsplit(":", 3)
    try:
        low, high, count = float(numbers[0]), float(numbers[1]), int(numbers[2])
    except (IndexError, ValueError):
        raise ValueError(
            f"Sweep {sweep[:80]!r}: write PLACE:LOW:HIGH:STEPS, such as escalate:0.4:0.9:26."
        ) from None
    (document,) = documents.values()
    return swept(document, place, steps(low, high, count))


def steps(low: float, high: float, count: int) -> list[float]:
    """Return `count` values from low to high, both included."""
    if not 2 <= count <= MAX_POLICIES or not -math.inf < low < high < math.inf:
        raise ValueError(f"A sweep goes from a lower to a higher value in 2 to {MAX_POLICIES} steps.")
    return [round(low + (high - low) * at / (count - 1), 10) for at in range(count)]


def cheapest_within(result: Backtest, bar: float) -> Line | None:
    """Return the policy that meets the quality bar (0 … 1) at the lowest cost per success; None if none does."""
    within = [
        line
        for line in result.policies
        if line.accuracy.value is not None
        and line.accuracy.value >= bar
        and line.cost_per_success.value is not None
    ]
    return min(within, key=lambda line: line.cost_per_success.value or 0.0, default=None)


def of_unknown_cost(result: Backtest, bar: float) -> list[str]:
    """Return the policies that meet the bar and whose cost per success is unknown."""
    return [
        line.name
        for line in result.policies
        if line.cost_per_success.value is None
        and line.accuracy.value is not None
        and line.accuracy.value >= bar
    ]


def is_sure(line: Line, bar: float) -> bool:
    """Return whether the interval of its accuracy is above the bar too."""
    return line.accuracy.low is not None and line.accuracy.low >= bar


def _condition(document: Mapping[str, Any], place: str) -> str:
    if place == "escalate":
        condition = document.get("escalate", {}).get("when")
    else:
        condition = next((rule["when"] for rule in document.get("rules", ()) if rule["id"] == place), None)
    if condition is None:
        known = [rule["id"] for rule in document.get("rules", ())]
        raise ValueError(
            f"There is no condition at {place!r}; name `escalate` or a rule: {', '.join(known) or 'none'}."
        )
    return str(condition)


def _only_number(condition: str, place: str) -> tuple[int, int]:
    blanked = _STRING.sub(lambda found: " " * len(found.group()), condition)
    found = list(_NUMBER.finditer(blanked))
    if len(found) != 1:
        raise ValueError(
            f"The condition of {place} holds {len(found)} numbers ({condition}); a sweep needs exactly one."
        )
    return found[0].span()


def _set(document: dict[str, Any], place: str, condition: str) -> None:
    if place == "escalate":
        document["escalate"]["when"] = condition
        return
    for rule in document["rules"]:
        if rule["id"] == place:
            rule["when"] = condition
