"""Access to properties of environments, which a higher layer registers here."""

from collections.abc import Callable


def _none() -> dict[str, bool]:
    return {}


_four_eyes: Callable[[], dict[str, bool]] = _none


def register(four_eyes: Callable[[], dict[str, bool]]) -> None:
    """Register a function that returns whether each environment requires four eyes, by name. Called once, by the app
    with the environments."""
    global _four_eyes
    _four_eyes = four_eyes


def environment_names() -> list[str]:
    return sorted(_four_eyes())


def asks_for_four_eyes(environment: str) -> bool:
    """Return whether an environment requires four eyes; for `""` (every one), whether any does."""
    found = _four_eyes()
    return any(found.values()) if environment == "" else found.get(environment, False)
