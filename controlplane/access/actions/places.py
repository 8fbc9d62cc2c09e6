"""Access to environments and workloads, which a higher layer registers here."""

from collections.abc import Callable, Collection

from controlplane.core.errors import InvalidInput


def _none() -> dict[str, bool]:
    return {}


_four_eyes: Callable[[], dict[str, bool]] = _none
_workloads_among: Callable[[Collection[str]], set[str]] = set


def register(
    four_eyes: Callable[[], dict[str, bool]], workloads_among: Callable[[Collection[str]], set[str]]
) -> None:
    """Register functions that return whether each environment requires four eyes, by name, and which of some names
    are workloads. Called once, by the app with both."""
    global _four_eyes, _workloads_among
    _four_eyes, _workloads_among = four_eyes, workloads_among


def refuse_unknown(environment: str, workloads: Collection[str]) -> None:
    """Raise `InvalidInput` if a key would be for an environment or workloads that do not exist."""
    problems = []
    if environment and environment not in _four_eyes():
        problems.append({"path": "environment", "message": f"there is no environment {environment!r}"})
    unknown = sorted(set(workloads) - _workloads_among(workloads))
    problems += [{"path": "workloads", "message": f"there is no workload {name!r}"} for name in unknown]
    if problems:
        raise InvalidInput("The key cannot be issued.", problems)


def environment_names() -> list[str]:
    return sorted(_four_eyes())


def asks_for_four_eyes(environment: str) -> bool:
    """Return whether an environment requires four eyes; for `""` (every one), whether any does."""
    found = _four_eyes()
    return any(found.values()) if environment == "" else found.get(environment, False)
