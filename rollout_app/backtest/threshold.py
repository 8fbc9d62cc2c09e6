"""A sweep of one threshold: the same policy with other numbers in one condition."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pointsman.evaluate import CompiledPolicy, compile_policy
from rollout_app.backtest.run import Backtest, Line

# A number that stands alone: not a part of a name, and not inside a string literal (those are cut out beforehand).
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")


def swept(document: Mapping[str, Any], place: str, values: Sequence[float]) -> dict[str, CompiledPolicy]:
    """The document once for each value, by the value's text.

    place  `escalate` for the second stage's condition, or the id of a rule
    Raises `ValueError` where the condition does not hold exactly one number, `PolicyInvalid` for a value that makes
    the document invalid.
    """
    condition = _condition(document, place)
    span = _only_number(condition, place)
    policies = {}
    for value in values:
        changed = deepcopy(dict(document))
        text = f"{value:g}"
        _set(changed, place, f"{condition[: span[0]]}{text}{condition[span[1] :]}")
        policies[text] = compile_policy(changed)
    return policies


def steps(low: float, high: float, count: int) -> list[float]:
    """`count` values from low to high, both included."""
    if count < 2 or not low < high:
        raise ValueError("A sweep goes from a lower to a higher value in at least 2 steps.")
    return [round(low + (high - low) * at / (count - 1), 10) for at in range(count)]


def cheapest_within(result: Backtest, bar: float) -> Line | None:
    """The policy that meets the quality bar (0 … 1) at the least cost per success; None when none does."""
    within = [
        line
        for line in result.policies
        if line.accuracy.value is not None
        and line.accuracy.value >= bar
        and line.cost_per_success.value is not None
    ]
    return min(within, key=lambda line: line.cost_per_success.value or 0.0, default=None)


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
