"""What callers give: ids, names, and booleans where a number is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from pointsman.errors import ConfigurationError

__all__ = ["id_text", "is_flag", "names_in"]


def id_text(given: object) -> str | None:
    """Return an id as text; None if it is none, such as a blank text. Never raises.

    Integers and UUIDs are ids. What stands for "nothing" is none: None, a boolean, NaN, an empty list. As text, it
    would be one big unit of everybody without an id.
    """
    try:
        if type(given) is not str and (given is None or not _is_one(given)):
            return None
        text = given if type(given) is str else str(given)
    except Exception:  # a proxy object whose target is gone; `pandas.NA`, which has no truth
        return None
    return None if not text or text.isspace() else text


def _is_one(given: object) -> bool:
    """Return whether a value names one thing: it is no boolean, not NaN and no collection."""
    if is_flag(given) or given != given:
        return False
    if isinstance(given, bytes):
        return bool(given.strip())
    return isinstance(given, str) or not isinstance(given, Sized)


def is_flag(given: object) -> bool:
    """Return whether the value is a boolean of Python or numpy, which Python takes for the number 0 or 1."""
    return type(given).__name__ in ("bool", "bool_")


def names_in(what: str, given: Iterable[str]) -> tuple[str, ...]:
    """Return a list of names. Raises ConfigurationError for a single text, whose letters would be the names."""
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        names = tuple(given)
        if all(isinstance(name, str) and name.strip() for name in names):
            return names
        given = names
    raise ConfigurationError(f'{what} must be a list of names, like ["support"], not {given!r}')
