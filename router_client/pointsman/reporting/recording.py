"""Turn a decision and the caller's result into an outcome for the protocol."""

from __future__ import annotations

import math
from numbers import Number
from typing import NamedTuple

from pointsman.attempt import ANSWERED_BADLY, UNREACHABLE, error_kind
from pointsman.costs import CostInvalid, Usage, cost_of, shown
from pointsman.decision import Decision
from pointsman.given import is_flag
from pointsman.history import FailureHistory
from pointsman.recent import Recent
from pointsman.reporting.buckets import BucketKey, Mirror, Outcome, Shadow
from pointsman.reporting.limits import LATENCY_MS, NAME

__all__ = ["TaskResult", "TypicalCosts", "bucket_key", "learn", "mirror_end", "outcome_of"]

# With a longer name the whole bucket would be refused.
_MODEL_LENGTH = NAME
_KINDS = frozenset((*UNREACHABLE, *ANSWERED_BADLY))
_GRADES: tuple[object, ...] = (0, 1)  # the only numbers that are grades


class TaskResult(NamedTuple):
    """A task's result as given by the caller. None means taken from the attempts, or unknown."""

    success: bool | None
    quality: float | None
    confidence: float | None
    cost_nusd: float | None
    cost_usd: float | None
    usage: Usage | None
    latency_ms: float | None
    error: str | None
    shadow_cost_nusd: float | None
    mirror_success: bool | None
    mirror_cost_nusd: float | None
    mirror_error: str | None
    mirror_latency_ms: float | None


class TypicalCosts:
    """The average cost of tasks that began on a model: a moving mean over about the last 50.

    In shadow this projects the cost of the candidate's choice from this process's own tasks. A model without
    tasks has no figure, and such a task is left out of both cost sums.
    """

    _WEIGHT = 0.02

    def __init__(self) -> None:
        self._means: Recent[tuple[str, str], list[float]] = Recent(2_000)

    def learn(self, workload: str, model: str, cost_nusd: int) -> None:
        mean = self._means.get((workload, model)) or self._means.put((workload, model), [float(cost_nusd)])
        mean[0] += (cost_nusd - mean[0]) * self._WEIGHT

    def of(self, workload: str, model: str) -> int | None:
        mean = self._means.get((workload, model))
        return round(mean[0]) if mean is not None else None


def learn(history: FailureHistory, decision: Decision, success: bool | None) -> None:
    """Add a finished task to the failure history, if it began on the weakest model and was graded or escalated.

    An escalated task counts as failed even if the strong model succeeded, because the weak one was not sufficient.
    """
    if decision.weakest and (success is not None or decision.escalations):
        history.record(decision.workload, decision.endpoint, decision.escalations > 0 or not success)


def bucket_key(decision: Decision) -> BucketKey:
    """Return the bucket's key. The minute is that of the decision, because arms are compared at the same time."""
    return BucketKey(
        int(decision.at // 60),
        decision.workload,
        decision.rollout,
        decision.stage,
        decision.arm,
        decision.version,
        _printable(decision.endpoint),
        decision.rule,
        _model(decision.final_alias),
    )


def outcome_of(
    decision: Decision, ending: TaskResult, costs: TypicalCosts
) -> tuple[Outcome, list[tuple[str, str]]]:
    """Return the outcome, and the invalid figures that were left out, as (figure, reason)."""
    steps = decision.steps
    error = _error(decision, ending)
    unreported = steps.complete(ending.usage, error, decision.prices)
    timed = steps.attempts > 0 and not unreported
    left_out: list[tuple[str, str]] = []
    known = {
        name: _figure(name, value, highest, left_out)
        for name, value, highest in (
            ("quality", ending.quality, 1),
            ("confidence", _first(ending.confidence, _last_confidence(decision)), 1),
            ("latency_ms", _first(ending.latency_ms, steps.latency_ms if timed else None), LATENCY_MS),
        )
    }
    cost = _cost(decision, ending, unreported, left_out)
    success = _grade("success", ending.success, left_out)
    if success is None and error is not None:
        success = False
    if cost is not None:
        costs.learn(decision.workload, decision.model, cost)
    outcome = Outcome(
        success=success,
        quality=known["quality"],
        confidence=known["confidence"],
        cost_nusd=cost,
        latency_ms=known["latency_ms"],
        error=error,
        escalations=steps.escalations,
        fallbacks=steps.fallbacks,
        retries=steps.retries,
        attempts=max(1, steps.attempts),
        models=tuple(_model(alias) for alias in steps.models) or (_model(decision.alias),),
        differing=decision.differing,
        shadow=_shadow(decision, ending, cost, costs, left_out),
        mirror=_mirror(success, cost, ending, left_out),
        mirror_failed=ending.mirror_error is not None,
        mirror_braked=decision.mirror_braked,
    )
    return outcome, left_out


def _first(given: object, otherwise: object) -> object:
    return given if given is not None else otherwise


def _figure(name: str, value: object, highest: float, left_out: list[tuple[str, str]]) -> float | None:
    """Return the number if it is between 0 and `highest`; None if it is unknown or invalid."""
    if value is None:
        return None
    try:
        if isinstance(value, str | bytes) or is_flag(value):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]  # whatever the caller gave
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if 0 <= number <= highest:
        return number
    left_out.append((name, f"a number from 0 to {highest:g}, not {shown(value)}"))
    return None


def _grade(name: str, value: object, left_out: list[tuple[str, str]]) -> bool | None:
    """Return the grade; None if it is unknown. NaN and scores are true in Python, but no grade."""
    if value is None or isinstance(value, bool):
        return value
    try:
        if not isinstance(value, Number) or value in _GRADES:
            return bool(value)
    except Exception:  # `pandas.NA` is neither true nor false
        value = type(value)
    left_out.append((name, f"True or False, not {shown(value)}"))
    return None


def _cost(
    decision: Decision, ending: TaskResult, unreported: bool, left_out: list[tuple[str, str]]
) -> int | None:
    """Return the cost of all attempts; None unless the cost of each is known.

    unreported   whether the last call was not passed to `next`, so that `usage` is that call's
    """
    steps = decision.steps
    if steps.cost_problem is not None:
        left_out.append(("cost", steps.cost_problem))
    if steps.expected_problem is not None:
        left_out.append(("expected_cost_nusd", steps.expected_problem))
    given, usage = ending.cost_nusd, ending.usage
    if given is None and ending.cost_usd is None and steps.attempts:
        if usage is None or unreported:
            if steps.unpriced:
                return None
            given = steps.cost_nusd
        elif steps.attempts > 1:
            left_out.append(
                ("cost", "usage is for a single call; for several calls, pass it with each Attempt")
            )
            return None
    try:
        return cost_of(given, ending.cost_usd, usage, steps.route.model, decision.prices)
    except CostInvalid as error:
        left_out.append(("cost", str(error)))
        return None


def _other_cost(given: object, left_out: list[tuple[str, str]]) -> int | None:
    try:
        return cost_of(given, None, None, "")
    except CostInvalid as error:
        left_out.append(("cost", str(error)))
        return None


def _error(decision: Decision, ending: TaskResult) -> str | None:
    if ending.error is not None:
        # Kinds are a closed list: with free strings, each would become a separate counter.
        known = isinstance(ending.error, str) and ending.error in _KINDS
        return ending.error if known else "error"
    steps = decision.steps
    if steps.done is None or steps.done.action != "stop" or steps.last is None:
        return None
    return error_kind(steps.last) or "error"


def _last_confidence(decision: Decision) -> float | None:
    last = decision.steps.last
    return last.confidence if last is not None else None


def _shadow(
    decision: Decision,
    ending: TaskResult,
    cost: int | None,
    costs: TypicalCosts,
    left_out: list[tuple[str, str]],
) -> Shadow | None:
    shadow = decision.shadow
    if shadow is None:
        return None
    agreed = bool(decision.agreed)
    if ending.shadow_cost_nusd is not None:
        projected = _other_cost(ending.shadow_cost_nusd, left_out)
    elif agreed:
        projected = cost
    else:
        priced = _priced(decision, ending, shadow.model)
        projected = priced if priced is not None else costs.of(decision.workload, shadow.model)
    served, chosen = _model(decision.alias)[:99], _model(shadow.alias)[:99]
    given = ending.shadow_cost_nusd is not None
    whole = projected is not None and (given or _goes_on_alike(decision, agreed))
    return Shadow(served, chosen, agreed, cost, projected, shadow.error, whole)


def _goes_on_alike(decision: Decision, agreed: bool) -> bool:
    """Return whether both policies run the task through the same stages, so that its cost is the candidate's too."""
    comparison = decision.assignment.comparison
    return agreed and comparison is not None and not comparison.second_stage


def _priced(decision: Decision, ending: TaskResult, model: str) -> int | None:
    """Return the cost of the same tokens on another model; None if tokens or prices are unknown, or if there were
    several calls, of which `usage` is one."""
    steps = decision.steps
    if steps.attempts > 1:
        return None
    counted = steps.last.usage if steps.last is not None else None
    try:
        return cost_of(None, None, _first(ending.usage, counted), model, decision.prices)
    except CostInvalid:  # already reported with the task's own cost
        return None


def _mirror(
    success: bool | None, cost: int | None, ending: TaskResult, left_out: list[tuple[str, str]]
) -> Mirror | None:
    # Mirroring happens only in shadow, where the baseline is served.
    # A candidate that gives no answer has failed: leaving it out would make the candidate look good.
    failed = ending.mirror_error is not None
    other = False if failed else _grade("mirror_success", ending.mirror_success, left_out)
    if other is None or success is None:
        return None
    return Mirror(success, other, cost, _other_cost(ending.mirror_cost_nusd, left_out))


def mirror_end(ending: TaskResult, left_out: list[tuple[str, str]]) -> tuple[bool | None, float | None]:
    """Return (failed, milliseconds) of the mirror for the brake; None if the caller does not say."""
    took = _figure("mirror_latency_ms", ending.mirror_latency_ms, LATENCY_MS, left_out)
    said = ending.mirror_success is not None or took is not None
    return (True if ending.mirror_error is not None else False if said else None), took


def _model(alias: str) -> str:
    return _printable(alias[:_MODEL_LENGTH])


def _printable(text: str) -> str:
    """Remove control characters and lone surrogates, for which a control plane refuses the whole batch."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
