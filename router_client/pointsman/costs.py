"""The cost of a task or an attempt in nano-US-dollars: given, or computed from tokens and the snapshot's prices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pointsman.given import is_flag

__all__ = [
    "HIGHEST_NUSD",
    "NO_PRICES",
    "CostInvalid",
    "Prices",
    "Usage",
    "cost_of",
    "expected_costs",
    "shown",
]

# Catalogue model → nano-USD per million tokens, by kind of token; None if the catalogue has no price.
Prices = Mapping[str, Mapping[str, int | None]]

NO_PRICES: Prices = MappingProxyType({})
HIGHEST_NUSD = 10**12  # a thousand dollars per task; above this the control plane refuses the whole report
_BEYOND_ANY_BUDGET = 2**53
_MOST_TOKENS = 10**12
# Nano-dollars have no fractions. `dollars * 1e9` is far above this even with rounding errors; plain dollars are below.
_DOLLARS_BELOW = 1_000


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one call.

    input        prompt tokens at the full price, without those read from or written to a cache
    output       answer tokens, including reasoning
    cache_read, cache_write   prompt tokens read from and written to the provider's cache
    batch        whether the call used a batch API
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    batch: bool = False


class CostInvalid(ValueError):
    """An invalid cost; the message says why."""


def cost_of(
    cost_nusd: object, cost_usd: object, usage: object, model: str, prices: Prices = NO_PRICES
) -> int | None:
    """Return the cost in nano-US-dollars from the first of the three that is given; None if it is unknown.

    Raises CostInvalid for an invalid cost: not a number, negative, above a thousand dollars, or dollars given as
    nano-dollars.
    """
    if cost_nusd is not None:
        return _nano_dollars(cost_nusd)
    if cost_usd is not None:
        return _checked(_number(cost_usd) * 1_000_000_000)
    if usage is None:
        return None
    if not isinstance(usage, Usage):
        raise CostInvalid(f"usage must be a pointsman.Usage; got {type(usage).__name__}")
    return _priced(usage, prices.get(model) or {})


def expected_costs(given: object) -> tuple[Mapping[str, int], str | None]:
    """Return the usable costs by model's alias, in nano-US-dollars, and why another one is not usable.

    An unusable one is unknown, as if it was not given.
    """
    usable: dict[str, int] = {}
    problem: str | None = None
    if given is None:
        return usable, None
    if not isinstance(given, Mapping):
        return usable, f"it must map models to costs; got {type(given).__name__}"
    for alias, cost in given.items():
        if cost is None:
            continue
        try:
            usable[alias] = _nano_dollars(cost)
        except CostInvalid as error:
            problem = str(error)
            if isinstance(cost, int | float) and cost > HIGHEST_NUSD:
                usable[alias] = _BEYOND_ANY_BUDGET  # too much to be true, but certainly too much
    return usable, problem


def _nano_dollars(value: object) -> int:
    number = _number(value)
    if 0 <= number < _DOLLARS_BELOW and not float(number).is_integer():
        raise CostInvalid(
            f"cost_nusd={value!r} looks like dollars, but the unit is whole nano-dollars. Use cost_usd for dollars"
        )
    return _checked(number)


def _number(value: object) -> float:
    if is_flag(value):
        raise CostInvalid(f"a cost must be a number; got {value}")
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str | bytes):
        raise CostInvalid(f"a cost must be a number; got the text {value[:40]!r}")
    try:
        number = float(value)  # type: ignore[arg-type]  # a Decimal, a numpy scalar
    except (TypeError, ValueError, OverflowError):
        raise CostInvalid(f"a cost must be a number; got {type(value).__name__}") from None
    if not math.isfinite(number):
        raise CostInvalid(f"a cost must be finite; got {number}")
    return number


def _checked(number: float) -> int:
    if not 0 <= number <= HIGHEST_NUSD:
        raise CostInvalid(
            f"a task's cost must be between 0 and 1,000 dollars; got {shown(number)} nano-dollars"
        )
    return round(number)


def _priced(usage: Usage, prices: Mapping[str, int | None]) -> int | None:
    """Return Σ tokens × price, to the nearest nano-dollar; None if a required price is unknown."""
    prefix = "batch_" if usage.batch else ""
    lines = [
        (usage.input, prices.get(f"{prefix}input")),
        (usage.output, prices.get(f"{prefix}output")),
        (usage.cache_read, prices.get("cache_read")),
        (usage.cache_write, prices.get("cache_write")),
    ]
    total = 0
    for tokens, price in lines:
        total_tokens = _tokens(tokens)
        if total_tokens and price is None:
            return None
        total += total_tokens * (price or 0)
    if not any(tokens for tokens, _ in lines) and not prices:
        return None
    return _checked((total + 500_000) // 1_000_000)


def _tokens(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_TOKENS:
        raise CostInvalid(f"a token count must be an integer from 0 to {_MOST_TOKENS:,}; got {shown(value)}")
    return value


def shown(value: object) -> str:
    """Return at most 40 characters of a value for a message, or its type if it cannot be written.

    Python writes no integer of more than 4,300 digits, and a caller's own `__repr__` may raise.
    """
    try:
        return f"{value!r:.40}"
    except Exception:
        return type(value).__name__
