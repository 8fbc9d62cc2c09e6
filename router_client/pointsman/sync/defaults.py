"""The router's own defaults, used before the first snapshot and for workloads without a policy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pointsman.assignment import Side, WorkloadAssignment
from pointsman.errors import ConfigurationError, PolicyInvalid
from pointsman.evaluate import CompiledPolicy, Route, compile_policy
from pointsman.problems import did_you_mean
from pointsman.recent import Recent
from pointsman.sync.snapshot import Snapshot

__all__ = ["DefaultAssignments", "unknown_workload"]

_NOTHING = "no policy for this workload has been received, and the router was given no default"
_DEFAULT = "no policy for this workload has been received, so the router's own default answers"


class DefaultAssignments:
    """Assignments with version 0, which is never reported in outcomes. Made from `{workload: model name or policy
    document}`.

    Raises ConfigurationError for an invalid document.
    """

    def __init__(self, defaults: Mapping[str, str | Mapping[str, Any]]) -> None:
        self._given = {name: _given(name, default) for name, default in defaults.items()}
        # Names come from callers; a caller that makes names up must not fill the memory.
        self._empty: Recent[str, WorkloadAssignment] = Recent(1_000)

    def assignment(self, workload: str) -> WorkloadAssignment:
        """Return the default of a workload, or an assignment with an empty model.

        A name that is no text, such as a member of an enumeration, becomes "": it could not be written in an id.
        """
        name = workload if isinstance(workload, str) else ""
        given = self._given.get(name) or self._empty.get(name)
        return given or self._empty.put(name, _one_model(name, "", _NOTHING))


def unknown_workload(name: str, snapshot: Snapshot) -> str:
    """Return the message for a workload without a policy: what is served instead, and what to do."""
    if rejected := next((one for one in snapshot.rejected if one.workload == name), None):
        return f"the policy of {name!r} cannot run in this router, so the default answers, if any: {rejected.error}"
    names = sorted(snapshot.workloads)
    several = (
        f"it serves {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else "it serves none"
    )
    return (
        f"{snapshot.environment} serves no workload {name!r} to this key, so the router's default answers, if it has "
        f"one; {several}. Correct the name, or serve that workload{did_you_mean(name, names)}"
    )


def _given(name: str, default: str | Mapping[str, Any]) -> WorkloadAssignment:
    if isinstance(default, str):
        return _one_model(name, default, _DEFAULT)
    try:
        return _assignment(name, compile_policy(default), None)
    except PolicyInvalid as error:
        raise ConfigurationError(f"the default policy of {name} must not run:\n{error}") from error


def _one_model(name: str, model: str, reason: str) -> WorkloadAssignment:
    entry = {model: {"model": model}}
    policy = CompiledPolicy({"workload": name, "models": entry, "default": model, "fallback": [model]})
    return _assignment(name, policy, Route("default", model, model, MappingProxyType({}), (), reason, False))


def _assignment(name: str, policy: CompiledPolicy, fixed: Route | None) -> WorkloadAssignment:
    side = Side("baseline", 0, "", policy, "the router's default")
    return WorkloadAssignment(name, "", 0, "request", side, pinned=fixed)
