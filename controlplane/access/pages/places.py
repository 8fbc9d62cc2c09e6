"""The names of the environments, for the pages of people: their model lies above this package, and registers itself."""

from collections.abc import Callable


def _none() -> list[str]:
    return []


_names: Callable[[], list[str]] = _none


def register(names: Callable[[], list[str]]) -> None:
    """Called once, by the app that keeps the environments. `names` is asked anew each time."""
    global _names
    _names = names


def environment_names() -> list[str]:
    return _names()
