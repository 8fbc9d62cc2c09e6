"""Convert values of files to figures: empty means missing, and an unreadable value is a problem, not a 0.

Called for every value of a file, so each function checks the most common type first.
"""

import math
from decimal import Decimal
from functools import lru_cache
from typing import Any

NUSD = 10**9
_TRUE, _FALSE = (
    frozenset({"1", "1.0", "true", "yes", "y", "t"}),
    frozenset({"0", "0.0", "false", "no", "n", "f"}),
)
_EMPTY = frozenset({"", "null", "none", "nan", "n/a", "na"})
_LONGEST_MS = 1e12  # 32 years; larger latencies would add up to infinity
_LONGEST_NUMBER = 64  # characters; longer text is not a number, and too large to cache
_WORDS: dict[Any, bool | None] = {"1": True, "0": False, "True": True, "False": False, "": None}


def missing(value: Any) -> bool:
    """Return whether there is no value: None, empty text, NaN."""
    if isinstance(value, str):
        return value.strip().lower() in _EMPTY
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any) -> float | None:
    """Return a finite number; None if missing. Raises `ValueError`."""
    if type(value) is not str:
        if missing(value):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
            raise ValueError(f"{_short(value)} is not a number")
    elif "_" in value:  # Python's digit separator, which does not occur in data files
        raise ValueError(f"{_short(value)} is not a number")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        if missing(value):
            return None
        raise ValueError(f"{_short(value)} is not a number") from None
    if not math.isfinite(found):
        if math.isnan(found):
            return None
        raise ValueError(f"{_short(value)} is not finite")
    return found


def yes_or_no(value: Any) -> bool | None:
    """Return True or False from 1/0, true/false, yes/no; None if missing. Raises `ValueError`."""
    if type(value) is str and value in _WORDS:
        return _WORDS[value]
    if missing(value) or (isinstance(value, Decimal) and value.is_nan()):
        return None
    text = f"{float(value):g}" if isinstance(value, (float, Decimal)) else str(value)
    if (word := text.strip().lower()) in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{_short(value)} is neither 1 nor 0 (nor true, false, yes, no)")


def money(value: Any, *, per_unit: float = 1.0) -> int | None:
    """Return nano-USD of an amount times `per_unit`, the value of one unit in dollars. Raises `ValueError`."""
    if (amount := number(value)) is None:
        return None
    dollars = amount * per_unit
    if not 0 <= dollars < 1e6:
        raise ValueError(f"a cost of {_short(value)}; it must be from 0 to below 1,000,000 dollars per task")
    return round(dollars * NUSD)


def share(value: Any) -> float | None:
    """Return a number from 0 to 1; None if missing. Raises `ValueError`."""
    found = number(value)
    if found is not None and not 0 <= found <= 1:
        raise ValueError(f"a confidence of {found:g}; it must be from 0 to 1")
    return found


def duration(value: Any, *, per_unit: float = 1.0) -> float | None:
    """Return milliseconds of a time times `per_unit`, the value of one unit in milliseconds. Raises `ValueError`."""
    found = number(value)
    if found is None:
        return None
    if found < 0:
        raise ValueError(f"a latency of {found:g}; it must be 0 or more")
    if found * per_unit > _LONGEST_MS:
        raise ValueError(f"a latency of {found:g}; it must be below {_LONGEST_MS / per_unit:g}")
    return found * per_unit


def text(value: Any) -> str | None:
    """Return text; None if missing."""
    return None if value == "" or missing(value) else str(value)


def plain(value: Any) -> Any:
    """Return a policy's input: a number if the text is one; None if missing."""
    if type(value) is str:
        return _read(value) if len(value) <= _LONGEST_NUMBER else value
    if missing(value):
        return None
    return float(value) if isinstance(value, Decimal) else value


@lru_cache(16_384)  # columns usually have few distinct values
def _read(value: str) -> Any:
    if missing(value):
        return None
    if "_" in value:
        return value
    for kind in (int, float):
        try:
            found = kind(value)
        except ValueError:
            continue
        return found if math.isfinite(found) else value
    return value


def _short(value: Any) -> str:
    shown = repr(value[:60] if isinstance(value, str) else value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
