"""From a decision and what the caller says of its end to an outcome that the protocol takes."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from pointsman.attempt import ANSWERED_BADLY, UNREACHABLE, error_kind
from pointsman.decision import Decision
from pointsman.history import FailureHistory
from pointsman.recent import Recent
from pointsman.reporting.buckets import BucketKey, Mirror, Outcome, Shadow

__all__ = ["TaskResult", "TypicalCosts", "bucket_key", "learn", "outcome_of"]

# Bounds of the protocol: a longer name or a higher cost would have its whole bucket refused.
_MODEL_LENGTH = 120
_HIGHEST_COST_NUSD = 10**12  # a thousand dollars a task
_KINDS = frozenset((*UNREACHABLE, *ANSWERED_BADLY))


class TaskResult(NamedTuple):
    """What the caller says of a task's end; None: take it from the attempts, or it is not known."""

    success: bool | None
    quality: float | None
    confidence: float | None
    cost_nusd: float | None
    latency_ms: float | None
    error: str | None
    shadow_cost_nusd: float | None
    mirror_success: bool | None
    mirror_cost_nusd: float | None


class TypicalCosts:
    """What a task cost on average that began on a model: a moving mean over about the last 50.

    A router knows no prices. In shadow this projects what the candidate's other choice would have cost, from
    this process's own tasks; a model never seen has no figure, and such a task stays out of both cost sums.
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

    An escalated task counts as failed, whatever the strong model then made of it: the weak one was not enough.
    """
    if decision.weakest and (success is not None or decision.escalations):
        history.record(decision.workload, decision.endpoint, decision.escalations > 0 or not success)


def bucket_key(decision: Decision) -> BucketKey:
    """Where the outcome counts: the minute of the decision, since arms are compared at one time of day."""
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


def outcome_of(decision: Decision, ending: TaskResult, costs: TypicalCosts) -> tuple[Outcome, int]:
    """The outcome, and how many figures had to be left out because they are none."""
    steps = decision.steps
    tried = steps.attempts > 0
    figures = {
        "quality": _score(ending.quality),
        "confidence": _score(
            ending.confidence if ending.confidence is not None else _last_confidence(decision)
        ),
        "cost": _money(ending.cost_nusd if ending.cost_nusd is not None else steps.cost_nusd or None),
        "latency": _duration(
            ending.latency_ms if ending.latency_ms is not None else steps.latency_ms if tried else None
        ),
    }
    left_out = sum(figure is _BAD for figure in figures.values())
    known = {name: None if figure is _BAD else figure for name, figure in figures.items()}
    cost = None if known["cost"] is None else int(known["cost"])
    error = _error(decision, ending)
    success = ending.success if ending.success is None else bool(ending.success)
    if success is None and error is not None:
        success = False
    if cost is not None:
        costs.learn(decision.workload, decision.model, cost)
    outcome = Outcome(
        success=success,
        quality=known["quality"],
        confidence=known["confidence"],
        cost_nusd=cost,
        latency_ms=known["latency"],
        error=error,
        escalations=steps.escalations,
        fallbacks=steps.fallbacks,
        retries=steps.retries,
        attempts=max(1, steps.attempts),
        models=tuple(_model(alias) for alias in steps.models) or (_model(decision.alias),),
        group=decision.group,
        shadow=_shadow(decision, ending, cost, costs),
        mirror=_mirror(success, cost, ending),
    )
    return outcome, left_out


_BAD = math.nan


def _figure(value: object, highest: float) -> float | None:
    """The number from 0 to `highest`; `_BAD` for any other and for what is none."""
    if value is None:
        return None
    if isinstance(value, str | bytes):
        return _BAD
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever the caller gave
    except (TypeError, ValueError, OverflowError):
        return _BAD
    return number if 0 <= number <= highest else _BAD


def _score(value: object) -> float | None:
    return _figure(value, 1)


def _money(value: object) -> float | None:
    amount = _figure(value, _HIGHEST_COST_NUSD)
    return amount if amount is None or amount is _BAD else round(amount)


def _duration(value: object) -> float | None:
    return _figure(value, sys.float_info.max)


def _error(decision: Decision, ending: TaskResult) -> str | None:
    if ending.error is not None:
        # Kinds are a closed list: free words would each become a counter of their own.
        known = isinstance(ending.error, str) and ending.error in _KINDS
        return ending.error if known else "error"
    steps = decision.steps
    if steps.done is None or steps.done.action != "stop" or steps.last is None:
        return None
    return error_kind(steps.last) or "error"


def _last_confidence(decision: Decision) -> float | None:
    last = decision.steps.last
    return last.confidence if last is not None else None


def _shadow(decision: Decision, ending: TaskResult, cost: int | None, costs: TypicalCosts) -> Shadow | None:
    shadow = decision.shadow
    if shadow is None:
        return None
    agreed = bool(decision.agreed)
    if ending.shadow_cost_nusd is not None:
        projected = _money(ending.shadow_cost_nusd)
    else:
        projected = cost if agreed else costs.of(decision.workload, shadow.model)
    known = None if projected is None or projected is _BAD else int(projected)
    served, chosen = _model(decision.alias)[:99], _model(shadow.alias)[:99]
    return Shadow(served, chosen, agreed, cost, known, shadow.error)


def _mirror(success: bool | None, cost: int | None, ending: TaskResult) -> Mirror | None:
    # A mirror runs in shadow only, where the baseline is what was served.
    if ending.mirror_success is None or success is None:
        return None
    other = _money(ending.mirror_cost_nusd)
    return Mirror(
        success, bool(ending.mirror_success), cost or 0, 0 if other is None or other is _BAD else int(other)
    )


def _model(alias: str) -> str:
    return _printable(alias[:_MODEL_LENGTH])


def _printable(text: str) -> str:
    """Without control characters and lone surrogates: a control plane refuses the whole batch for them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
