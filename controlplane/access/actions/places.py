"""What people's roles must know of the environments: their model lies above this package, and registers itself."""

from collections.abc import Callable


def _none() -> dict[str, bool]:
    return {}


_four_eyes: Callable[[], dict[str, bool]] = _none


def register(four_eyes: Callable[[], dict[str, bool]]) -> None:
    """Called once, by the app that keeps the environments: whether each asks for four eyes, by name, asked anew."""
    global _four_eyes
    _four_eyes = four_eyes


def environment_names() -> list[str]:
    return sorted(_four_eyes())


def asks_for_four_eyes(environment: str) -> bool:
    """Whether an environment does; for `""`, every one, whether any does."""
    found = _four_eyes()
    return any(found.values()) if environment == "" else found.get(environment, False)
