"""Find the tasks that the two policies of a rollout treat differently; only these can show an effect.

The result is computed in the same way in both arms: from the request, the shared history and the unit's latch. The
latch is used only until the unit meets its first differing task, because until then both arms would have set it alike.

Most versions change one or two rules. Rules with the same condition in both policies are therefore evaluated once, by
the serving policy; of the other policy, only the conditions that are not shared are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from pointsman.evaluate import CompiledPolicy, Route

__all__ = ["AGREE", "SAME", "Comparison", "Counterpart"]

AGREE = ""  # both policies treat the task alike
SAME = "same"  # same model, but different parameters or limits, or different steps after an attempt
_LONGEST = 100  # characters of a model in a route pair
_SECOND_STAGE = ("escalate", "fallback", "retry", "budget", "guard", "models", "rank")

Counterpart = tuple[str, Route]  # (the route pair, what the other policy chooses)
_Probe = Callable[[Mapping[str, Any], Any], Route | None]


class Shared(NamedTuple):
    """A rule in both policies: the other policy's choice for it, unless `probe` finds an earlier rule."""

    pair: str
    route: Route
    probe: _Probe | None


class Comparison:
    """Two compiled policies, compared once when a snapshot is applied. Immutable.

    remembers      whether either policy remembers units, so that a unit that differs once always differs
    uses_history   whether either policy uses the failure history
    latches        whether either policy keeps escalated conversations with the stronger model
    second_stage   whether `next` may differ between the two
    shared         the rules in both policies, by serving arm and rule id
    """

    __slots__ = (
        "_always", "baseline", "candidate", "latches", "remembers", "second_stage", "shared",
        "uses_history",
    )  # fmt: skip

    def __init__(self, baseline: CompiledPolicy, candidate: CompiledPolicy) -> None:
        self.baseline, self.candidate = baseline, candidate
        self._always = _get(baseline, "timeouts") != _get(candidate, "timeouts") or (
            baseline.batch != candidate.batch
        )
        self.uses_history = baseline.uses_history or candidate.uses_history
        self.latches = baseline.latched is not None or candidate.latched is not None
        # If every task differs anyway, there is nothing to remember.
        self.remembers = (self.latches or self.uses_history) and not self._always
        self.second_stage = any(_get(baseline, name) != _get(candidate, name) for name in _SECOND_STAGE)
        self.shared = {arm: self._shared_rules(arm) for arm in ("baseline", "candidate")}

    def counterpart(self, arm: str, route: Route, request: Mapping[str, Any], history: Any) -> Counterpart:
        """Return the other policy's choice, given that `arm` serves with `route`."""
        shared = self.shared[arm].get(route.rule)
        if shared is None:
            return self.evaluated(arm, route, request, history)
        pair, other, probe = shared
        if probe is not None and (earlier := probe(request, history)) is not None:
            return self.of(arm, route, earlier), earlier
        return pair, other

    def evaluated(self, arm: str, route: Route, request: Mapping[str, Any], history: Any) -> Counterpart:
        """Return the same by evaluating the whole other policy."""
        other = self.other(arm).route(request, history)
        return self.of(arm, route, other), other

    def other(self, arm: str) -> CompiledPolicy:
        """Return the policy of the other arm."""
        return self.candidate if arm == "baseline" else self.baseline

    def of(self, arm: str, route: Route, other: Route) -> str:
        """Return the route pair of a task that `arm` serves with `route` and the other arm would serve with `other`."""
        baseline, candidate = (route, other) if arm == "baseline" else (other, route)
        if baseline.model != candidate.model:
            return f"{_name(baseline.model)}>{_name(candidate.model)}"
        return SAME if self._always or baseline.params != candidate.params else AGREE

    def _shared_rules(self, arm: str) -> dict[str, Shared]:
        """Return the serving policy's rules by id, as far as the other policy has the same condition.

        If one of them matches, the shared rules before it do not match in the other policy either.
        """
        mine, theirs = self.baseline if arm == "baseline" else self.candidate, self.other(arm)
        if mine.data.get("inputs", {}) != theirs.data.get("inputs", {}):
            return {}  # the same condition may have two meanings
        rules, others = _rules(mine), _rules(theirs)
        probes: dict[int, _Probe | None] = {0: None}  # by the number of conditions that it evaluates
        shared: dict[str, Shared] = {}
        own_before: list[Mapping[str, Any]] = []
        end = 0
        for start, other_start, size in _matching(rules, others):
            own_before += others[end:other_start]
            end = other_start + size
            if len(own_before) not in probes:
                probes[len(own_before)] = theirs.probe(own_before)
            for rule, other in zip(rules[start : start + size], others[other_start:end], strict=True):
                served, route = _to(mine, rule), _to(theirs, other)
                shared[rule["id"]] = Shared(self.of(arm, served, route), route, probes[len(own_before)])
        return shared


def _rules(policy: CompiledPolicy) -> list[Mapping[str, Any]]:
    """Return the rules, with the default as a rule that always matches."""
    default = {"id": "default", "when": "true", "use": policy.data["default"]}
    return [*policy.data.get("rules", []), default]


def _matching(
    rules: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> list[tuple[int, int, int]]:
    """Return (start, start in the other policy, length) of runs of rules with the same conditions, in order."""
    conditions, other_conditions = ([rule["when"] for rule in some] for some in (rules, others))
    blocks = SequenceMatcher(None, conditions, other_conditions, autojunk=False).get_matching_blocks()
    return [(block.a, block.b, block.size) for block in blocks if block.size]


def _to(policy: CompiledPolicy, rule: Mapping[str, Any]) -> Route:
    return policy.routes[rule["use"]]._replace(rule=rule["id"])


def _get(policy: CompiledPolicy, name: str) -> Any:
    return policy.data.get(name)


def _name(model: str) -> str:
    text = model[:_LONGEST]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
