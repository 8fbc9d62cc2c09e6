"""Values as files have them, turned into figures: empty means missing, and what can't be read is a problem, not a 0."""

import math
from typing import Any

NUSD = 10**9
_TRUE, _FALSE = frozenset({"1", "true", "yes", "y", "t"}), frozenset({"0", "false", "no", "n", "f"})
_EMPTY = frozenset({"", "null", "none", "nan", "n/a", "na"})


def missing(value: Any) -> bool:
    """Whether nothing is there: None, an empty text, NaN."""
    if isinstance(value, str):
        return value.strip().lower() in _EMPTY
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any) -> float | None:
    """A finite number; None where it is missing. Raises `ValueError`."""
    if missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{_short(value)} is not a number")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{_short(value)} is not a number") from None
    if not math.isfinite(found):
        raise ValueError(f"{_short(value)} is not finite")
    return found


def yes_or_no(value: Any) -> bool | None:
    """True or False of 1/0, true/false, yes/no; None where it is missing. Raises `ValueError`."""
    if missing(value):
        return None
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if (word := text.strip().lower()) in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{_short(value)} is neither 1 nor 0 (nor true, false, yes, no)")


def money(value: Any, *, per_unit: float = 1.0) -> int | None:
    """Nano-USD of an amount times `per_unit`, what one unit is in dollars. Raises `ValueError` for what is no cost."""
    if (amount := number(value)) is None:
        return None
    dollars = amount * per_unit
    if not 0 <= dollars < 1e6:
        raise ValueError(f"a cost of {_short(value)}; from 0 to below 1,000,000 dollars a task is meant")
    return round(dollars * NUSD)


def plain(value: Any) -> Any:
    """A policy's input: a number where a text reads as one."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            found = kind(value)
        except ValueError:
            continue
        return found if math.isfinite(found) else value
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
