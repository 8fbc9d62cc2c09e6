"""A compiled policy document: the first rule whose condition is certainly true decides.

`compile_policy` turns all rules of a document into one function. It loads each input once, at the first rule
that uses it, and returns a prebuilt route: on the usual path nothing is allocated and nothing
can be raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from pointsman.conditions import (
    FIRST_STAGE,
    SECOND_STAGE,
    Condition,
    Input,
    compile_condition,
    declared,
    define,
    inputs_needed,
)
from pointsman.conditions.emit import Emitter
from pointsman.errors import PolicyInvalid
from pointsman.policy.canonical import plain
from pointsman.policy.validate import validate

__all__ = ["CompiledPolicy", "Escalate", "Retry", "Route", "compile_policy"]


_FAILED, _ANSWER_BROKEN = "except Exception as error:", "    return broken(error)"


class Route(NamedTuple):
    """Where a request goes.

    rule     the rule's id, or `default`, `pin`, `latch`, `guard`, `fallback`
    alias    the policy's own name of the model; `model` is the catalogue's; `params` its parameters
    missing  absent inputs that left a rule undecided
    reason   one sentence
    error    whether evaluation failed
    """

    rule: str
    alias: str
    model: str
    params: Mapping[str, Any]
    missing: tuple[str, ...]
    reason: str
    error: bool


@dataclass(frozen=True, slots=True)
class Escalate:
    """The second stage: at most `max` times per task, to a stronger model."""

    to: str
    max: int
    on: frozenset[str]
    when: Condition | None
    missing_confidence: str
    latch: str


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a model is retried, and the first wait; the wait doubles each time."""

    attempts: int
    on: frozenset[str]
    backoff_ms: int


class _Choose(Protocol):
    def __call__(self, request: Mapping[str, Any], history: Any = None) -> Route: ...


class CompiledPolicy:
    """A document that passed validation. Immutable.

    `route(request, history=None)` returns the `Route` of the first rule that certainly matches, or else the
    default's. It never raises: if evaluation fails, it returns `guard.on_evaluation_error` with `error` set.
    `history` is a `Window` or `{"failure_rate": …, "tasks": …}`.
    """

    __slots__ = (
        "batch", "data", "escalate", "fallback", "guard_error", "guard_unknown", "latched", "max_cost_nusd",
        "models", "rank", "retry", "route", "routes", "strongest", "timeouts", "uses_history",
        "weakest", "workload",
    )  # fmt: skip

    route: _Choose

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.workload: str = data["workload"]
        self.models: dict[str, tuple[str, Mapping[str, Any]]] = {
            alias: (entry["model"], MappingProxyType(entry.get("params", {})))
            for alias, entry in data["models"].items()
        }
        ranked = list(data.get("rank") or self.models)
        self.rank = {alias: place for place, alias in enumerate(ranked)}
        self.weakest: str = ranked[0]
        self.strongest: str = ranked[-1]
        guard = data.get("guard", {})
        self.guard_error: str = guard.get("on_evaluation_error", self.strongest)
        self.guard_unknown: str = guard.get("on_unknown_model", self.strongest)
        self.fallback: tuple[str, ...] = tuple(data["fallback"])
        self.retry = _retry(data.get("retry", {}))
        self.timeouts: Mapping[str, int] = MappingProxyType(data.get("timeouts", {}))
        self.max_cost_nusd: int | None = data.get("budget", {}).get("max_cost_per_task_nusd")
        self.batch: bool = data.get("batch", False)
        self.routes = {alias: self._to(alias, "fallback", f"asks {alias}") for alias in self.models}
        self.escalate = _escalate(data)
        self.latched = self._latched()
        self.route, self.uses_history = _compile_rules(self, data)
        if self.escalate is not None and self.escalate.when is not None:
            names, _ = inputs_needed(self.escalate.when.node)
            self.uses_history |= any(name.startswith("history.") for name in names)

    def probe(self, rules: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any], Any], Route | None]:
        """Compile some of the rules into a function of (request, history) that returns the first match or None."""
        inputs = declared(self.data.get("inputs"), FIRST_STAGE)
        emitter = Emitter(inputs)
        lines = []
        for rule in rules:
            node = compile_condition(rule["when"], inputs).node
            lines += [line for name in inputs_needed(node)[0] for line in emitter.load(name)]
            route = emitter.constant(self.routes[rule["use"]]._replace(rule=rule["id"]))
            lines.append(f"if {emitter.true(node)}: return {route}")
        emitter.constants["broken"] = self.broken
        body = ["try:", *(f"    {line}" for line in [*lines, "return None"]), _FAILED, _ANSWER_BROKEN]
        return define("probe", "request, history", body, emitter.constants)

    def stronger(self, alias: str, than: str) -> bool:
        """Return whether a model ranks above another one.

        A `than` that the policy does not know ranks above all models.
        """
        return self.rank.get(alias, -1) > self.rank.get(than, len(self.rank))

    def broken(self, error: Exception) -> Route:
        """Return the route for a policy that could not be evaluated."""
        why = f"the policy could not be evaluated ({type(error).__name__}), so its guard uses {self.guard_error}"
        return self._to(self.guard_error, "guard", why)._replace(error=True)

    def unknown_model(self, chosen: Route) -> Route:
        """Return the route for a chosen model that this router cannot call."""
        why = f"{chosen.reason}; {chosen.model} is not known here, so the guard uses {self.guard_unknown}"
        return self._to(self.guard_unknown, "guard", why)._replace(missing=chosen.missing)

    def _latched(self) -> Route | None:
        if self.escalate is None or self.escalate.latch != "conversation":
            return None
        return self._to(
            self.escalate.to,
            "latch",
            f"the conversation was escalated earlier and stays with {self.escalate.to}",
        )

    def _to(self, alias: str, rule: str, reason: str) -> Route:
        model, params = self.models[alias]
        return Route(rule, alias, model, params, (), reason, False)


def compile_policy(data: Mapping[str, Any]) -> CompiledPolicy:
    """Validate and compile a document (about a millisecond). Raises `PolicyInvalid` with all problems."""
    problems = validate(data)
    if any(problem.severity == "error" for problem in problems):
        raise PolicyInvalid(problems)
    return CompiledPolicy(plain(data))


def _retry(entry: Mapping[str, Any]) -> Retry:
    return Retry(entry.get("attempts", 0), frozenset(entry.get("on", ())), entry.get("backoff_ms", 0))


def _escalate(data: Mapping[str, Any]) -> Escalate | None:
    entry = data.get("escalate")
    if entry is None:
        return None
    when = entry.get("when")
    return Escalate(
        to=entry["to"],
        max=entry.get("max", 1),
        on=frozenset(entry.get("on", ())),
        when=compile_condition(when, declared(data.get("inputs"), SECOND_STAGE))
        if when is not None
        else None,
        missing_confidence=entry.get("missing_confidence", "accept"),
        latch=entry.get("latch", "task"),
    )


def _compile_rules(policy: CompiledPolicy, data: Mapping[str, Any]) -> tuple[_Choose, bool]:
    inputs = declared(data.get("inputs"), FIRST_STAGE)
    emitter = Emitter(inputs)
    body = ["missing = None"]
    for rule in data.get("rules", ()):
        body += _rule(policy, rule, emitter, inputs)
    default = policy._to(
        data["default"], "default", f"no rule matches, so it uses the default, {data['default']}"
    )
    body.append(_answer(emitter, default))
    emitter.constants |= {"unsure": _unsure, "note": _note, "broken": policy.broken}
    lines = ["try:", *(f"    {line}" for line in body), _FAILED, _ANSWER_BROKEN]
    choose = define("route", "request, history=None", lines, emitter.constants)
    return choose, any(name.startswith("history.") for name in emitter.locals)


def _rule(
    policy: CompiledPolicy, rule: Mapping[str, Any], emitter: Emitter, inputs: Mapping[str, Input]
) -> list[str]:
    node = compile_condition(rule["when"], inputs).node
    names, needed = inputs_needed(node)
    why = f"rule {rule['id']} matches, so it uses {rule['use']}: {rule.get('note') or rule['when']}"
    lines = [line for name in names for line in emitter.load(name)]
    lines += [
        f"if {emitter.true(node)}:",
        f"    {_answer(emitter, policy._to(rule['use'], rule['id'], why))}",
    ]
    if gaps := emitter.gaps(needed):
        values = "".join(f"{emitter.locals[name]}, " for name in needed)
        noted = f"missing = note(missing, {emitter.constant(tuple(needed))}, ({values}))"
        lines += [f"if ({gaps}) and not {emitter.false(node)}:", f"    {noted}"]
    return lines


def _answer(emitter: Emitter, route: Route) -> str:
    name = emitter.constant(route)
    return f"return {name} if missing is None else unsure({name}, missing)"


def _note(
    missing: dict[str, None] | None, names: tuple[str, ...], values: tuple[Any, ...]
) -> dict[str, None]:
    """Add the absent inputs of a rule whose result is unknown."""
    absent = (name for name, value in zip(names, values, strict=True) if value is None)
    return {**(missing or {}), **dict.fromkeys(absent)}


def _unsure(route: Route, missing: dict[str, None]) -> Route:
    names = tuple(missing)
    return route._replace(missing=names, reason=f"{route.reason} (missing: {', '.join(names)})")
