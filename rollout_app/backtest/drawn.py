"""Select the logged tasks that tell about a policy: the arm was drawn, and an arm acts as the policy would. Pure.

A log line gives three facts that are known before the outcome: which model each arm asks first, the probability of
each arm, and each version's steps after an attempt. An arm acts as the policy would if it asks the same model first
with the same parameters and continues in the same way; the policy's own version always does. The outcome plays no
role in this, so what is left out is left out of both arms.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pointsman.comparison import AGREE
from pointsman.evaluate import CompiledPolicy, compile_policy
from pointsman.policy import digest
from rollout_app.backtest.doubly_robust import (
    Key,
    Observation,
    ObservedSums,
    Value,
    ValueChange,
    estimates,
)
from rollout_app.backtest.readers.task_log import LoggedTask
from rollout_app.blast_radius.projection import PolicyShape

Documents = Mapping[int, Mapping[str, Any]]
_SUM = 1e-9
_LONGEST = 200  # characters of a name in a group
_MOST_NAMES = 1_000  # counted separately; a damaged log could have a new one in each line


@dataclass(slots=True)
class Drawn:
    """What the drawn tasks of a log say about one policy.

    tasks       tasks whose arm was drawn
    undrawn     other tasks, which say nothing about the arm that could not have served them
    unsupported by the model that the policy would ask first, where no arm does so or continues alike: unknown
    left_out    by reason: pinned, other workload, invalid propensity, unknown version
    missing     inputs that the policy reads and the lines lack, by name
    value       None without tasks to estimate from
    change      compared with the first policy, on the tasks that tell about both
    passed_over lines of the log that were skipped, in words
    """

    tasks: int = 0
    undrawn: int = 0
    unsupported: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    value: Value | None = None
    change: ValueChange | None = None
    passed_over: list[str] = field(default_factory=list)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of success over all drawn tasks, whatever the unknown outcomes were; None if nothing is known."""
        supported = self.value.tasks if self.value is not None else 0
        tasks = supported + sum(self.unsupported.values())
        if self.value is None or self.value.success.value is None or not tasks:
            return None
        known = self.value.success.value * supported / tasks
        return known, known + 1 - supported / tasks


class _Arm(NamedTuple):
    version: int
    model: str
    probability: float


class Target:
    """One policy to be valued, and the versions with known documents."""

    def __init__(self, document: Mapping[str, Any], versions: Documents) -> None:
        self._policy: CompiledPolicy = compile_policy(document)
        self._shape = PolicyShape.of(document)
        named = digest(document)
        self._own = {number for number, known in versions.items() if digest(known) == named}
        self._shapes = {number: PolicyShape.of(known) for number, known in versions.items()}
        self.drawn = Drawn()

    def observe(self, logged: LoggedTask) -> Observation | None:
        """Return the task for the estimate; None if it tells nothing, which is counted."""
        found = self.drawn
        if logged.workload != self._policy.workload:
            _count(found.left_out, f"of the workload {logged.workload[:_LONGEST]}")
            return None
        if not 0 < logged.propensity <= 1:  # also rejects NaN
            found.left_out["invalid propensity"] += 1
            return None
        if logged.rule == "pin":
            found.left_out["pinned"] += 1
            return None
        if logged.propensity > 1 - _SUM or logged.other is None:
            found.undrawn += 1
            return None
        found.tasks += 1
        arms = (
            _Arm(logged.version, logged.model, logged.propensity),
            _Arm(*logged.other, 1 - logged.propensity),
        )
        if unknown := next((arm for arm in arms if arm.version not in self._shapes), None):
            _count(found.left_out, f"version {unknown.version} is unknown")
            return None
        return self._weighed(logged, arms)

    def _weighed(self, logged: LoggedTask, arms: Sequence[_Arm]) -> Observation | None:
        model = self._first(logged, arms)
        alike = [self._acts_alike(arm, logged, model) for arm in arms]
        if logged.differing == AGREE and any(alike):
            alike = [True] * len(arms)
        probability = math.fsum(arm.probability for arm, same in zip(arms, alike, strict=True) if same)
        if not any(alike):
            _count(self.drawn.unsupported, model[:_LONGEST])
            return None
        return Observation(
            logged.unit,
            keys_of(logged, model),
            min(1.0, probability),
            alike[0],
            logged.success,
            logged.cost_nusd,
        )

    def _first(self, logged: LoggedTask, arms: Sequence[_Arm]) -> str:
        """Return the model that the policy asks first. For its own version use the router's choice, which knew all
        inputs.
        """
        for arm in arms:
            if arm.version in self._own:
                return arm.model
        route = self._policy.route(logged.task.request)
        self.drawn.missing.update(route.missing)
        return route.model

    def _acts_alike(self, arm: _Arm, logged: LoggedTask, model: str) -> bool:
        if arm.version in self._own:
            return True
        theirs = self._shapes[arm.version]
        return (
            arm.model == model
            and theirs.second == self._shape.second
            and _params(theirs, model) == _params(self._shape, model)
        )


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _MOST_NAMES else "other"] += 1


def _params(shape: PolicyShape, model: str) -> list[Any]:
    """Return the parameters of every alias of the model, because a line does not say which alias was chosen."""
    return [shape.params[alias] for alias, name in shape.models.items() if name == model]


def study(
    documents: Mapping[str, Mapping[str, Any]], versions: Documents, tasks: Iterable[LoggedTask]
) -> dict[str, Drawn]:
    """Return each policy's value by name, from one pass over a task log. Changes are relative to the first policy.

    versions  the documents of the log's versions by number, for their steps after an attempt
    """
    targets = {name: Target(document, versions) for name, document in documents.items()}
    with ExitStack() as stack:
        observed = [stack.enter_context(ObservedSums()) for _ in targets]
        for logged in tasks:
            seen = [target.observe(logged) for target in targets.values()]
            seen_by = sum(1 << at for at, one in enumerate(seen) if one is not None)
            for sums, one in zip(observed, seen, strict=True):
                if one is not None:
                    sums.add(one, seen_by)
        for target, (value, change) in zip(targets.values(), estimates(observed), strict=True):
            target.drawn.value, target.drawn.change = value, change
    return {name: target.drawn for name, target in targets.items()}


def keys_of(logged: LoggedTask, model: str) -> tuple[Key, ...]:
    """Return the groups of a task for the outcome model, widest first. All are known before an arm acts."""
    request = logged.task.request
    kind = (model[:_LONGEST], _named(request.get("endpoint")), _named(request.get("task_type")))
    sized = (*kind, _size(request.get("prompt_tokens")))
    sure = (*sized, _tenth(request.get("confidence")))
    most = (*sure, _named(request.get("priority")), _named(request.get("customer_tier")))
    return kind[:1], kind, sized, sure, most


def _named(value: Any) -> str | int | None:
    """Return a name or a whole number; None for anything else, which a log may hold but no router writes."""
    return value[:_LONGEST] if isinstance(value, str) else value if isinstance(value, int) else None


def _size(tokens: Any) -> int | None:
    """Return the size class: one per doubling."""
    return int(tokens).bit_length() if isinstance(tokens, int | float) and 0 <= tokens < 10**12 else None


def _tenth(share: Any) -> int | None:
    return int(share * 10) if isinstance(share, int | float) and 0 <= share <= 1 else None
