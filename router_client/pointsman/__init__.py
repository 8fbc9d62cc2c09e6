"""Pointsman's router client: local decisions by a router policy, with the last known good snapshot on disk.

    from pointsman import Attempt, Router

Names are loaded on first use, so that `import pointsman` is nearly free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointsman.attempt import Attempt, Next
    from pointsman.background import Pace
    from pointsman.costs import Usage
    from pointsman.decision import Decision
    from pointsman.errors import (
        ConfigurationError,
        PointsmanError,
        PolicyInvalid,
        SnapshotRefused,
        TokenInvalid,
    )
    from pointsman.mirror_brake import MirrorBrake
    from pointsman.reporting.samples.inputs import InputSamples
    from pointsman.router import Router
    from pointsman.task_log.writer import TaskLog
    from pointsman.version import VERSION as __version__  # noqa: N811

__all__ = [
    "Attempt",
    "ConfigurationError",
    "Decision",
    "InputSamples",
    "MirrorBrake",
    "Next",
    "Pace",
    "PointsmanError",
    "PolicyInvalid",
    "Router",
    "SnapshotRefused",
    "TaskLog",
    "TokenInvalid",
    "Usage",
    "__version__",
]

_HOMES = {
    "Attempt": "attempt",
    "ConfigurationError": "errors",
    "Decision": "decision",
    "InputSamples": "reporting.samples.inputs",
    "MirrorBrake": "mirror_brake",
    "Next": "attempt",
    "Pace": "background",
    "PointsmanError": "errors",
    "PolicyInvalid": "errors",
    "Router": "router",
    "SnapshotRefused": "errors",
    "TaskLog": "task_log.writer",
    "TokenInvalid": "errors",
    "Usage": "costs",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("pointsman.version").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'pointsman' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"pointsman.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
