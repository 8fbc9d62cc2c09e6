"""Guardrails: a metric, the accepted harm, and a weight in the decision to roll back. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from rollout_app.engine.measures.base import Measure, Tuning
from rollout_app.engine.measures.bounds import RateBound, RatioBound
from rollout_app.engine.measures.rates import RateDifference
from rollout_app.engine.measures.ratios import RatioChange
from rollout_app.engine.metrics import RATIOS, Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.values import value

METRICS = tuple(Metric)
LEAST_WEIGHT = 1e-6  # a smaller one counts for nothing, and its logarithm may not exist


@value(frozen=True, slots=True)
class Guardrail:
    """A metric, the accepted harm (`margin`), and its weight in the decision to roll back.

    margin: points as a fraction (0.02 = 2 points), or for ratios a fraction of the baseline's value. With `bound`,
    the guardrail is absolute: the rate, nUSD per success or mean quality that the candidate must keep; margin is
    unused.
    """

    metric: Metric
    margin: float
    weight: float
    bound: float | None = None

    @property
    def name(self) -> str:
        return str(self.metric) if self.bound is None else f"{self.metric}_bound"

    @property
    def gates(self) -> bool:
        """Whether it must pass before an advance. The cost tail does not: nothing can be proven about it."""
        return self.metric.spec.gates

    def as_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "margin": self.margin, "weight": self.weight, "bound": self.bound}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(Metric(data["metric"]), data["margin"], data["weight"], data.get("bound"))

    def measure(
        self, reference: Reference, shares: Iterable[float], restarts: Sequence[int], tuning: Tuning
    ) -> Measure:
        """Return its measure in a rollout that passes through `shares` (0 … 1).

        `restarts`: the later stages from which harm is also counted separately.
        """
        metric, bound, weight = self.metric, self.bound, self.weight
        if metric.spec.is_ratio:
            if bound is None:
                return RatioChange(metric, self.margin, weight, reference, restarts, tuning)
            return RatioBound(metric, bound, weight, reference, restarts, tuning)
        if bound is None:
            return RateDifference(metric, self.margin, weight, reference, shares, restarts, tuning)
        return RateBound(metric, bound, weight, reference, restarts, tuning)

    def why_not(self, reference: Reference) -> str:
        """Return why it is not compared with this baseline, in one sentence; empty if it is."""
        spec = self.metric.spec
        if self.bound is not None:
            return ""
        lacks = reference.mechanisms is not None and spec.mechanism not in reference.mechanisms
        if spec.mechanism and lacks:
            return f"The baseline's policy does not {_VERBS[spec.mechanism]}, so the rate is shown but not compared."
        return "" if spec.known(reference) else "The baseline never reported this figure before the rollout."


_VERBS = {"escalate": "escalate", "retry": "retry", "fallback": "fall back"}

DEFAULT_GUARDRAILS = tuple(
    Guardrail(metric, metric.spec.margin, metric.spec.weight) for metric in Metric if metric.spec.weight
)
_DEFAULTS = {guardrail.metric: guardrail for guardrail in DEFAULT_GUARDRAILS}
_CUSTOM_MARGIN, _CUSTOM_WEIGHT = 0.02, 0.10


def guardrails_for(overrides: Iterable[Mapping[str, Any]] = ()) -> tuple[Guardrail, ...]:
    """Return the default guardrails with a workload's own: {"metric", "enabled", "margin", "weight", "bound"}.

    None and missing mean the default. Weights are scaled to add up to 1; otherwise the chance of a false rollback
    would exceed alpha. Raises ValueError for a metric that is not in METRICS, or a weight or margin out of range.
    """
    chosen = {guardrail.name: guardrail for guardrail in DEFAULT_GUARDRAILS}
    for override in overrides:
        guardrail = _overridden(override)
        chosen.pop(guardrail.name, None)
        if override.get("enabled") is not False:
            chosen[guardrail.name] = guardrail
    total = sum(guardrail.weight for guardrail in chosen.values())
    if math.isclose(total, 1):
        return tuple(chosen.values())
    return tuple(replace(guardrail, weight=guardrail.weight / total) for guardrail in chosen.values())


def _overridden(override: Mapping[str, Any]) -> Guardrail:
    metric = Metric(override["metric"])
    default = _DEFAULTS.get(metric, Guardrail(metric, _CUSTOM_MARGIN, _CUSTOM_WEIGHT))
    margin, weight, bound = (override.get(key) for key in ("margin", "weight", "bound"))
    guardrail = Guardrail(
        metric,
        default.margin if margin is None else float(margin),
        default.weight if weight is None else _least(float(weight)),
        None if bound is None else float(bound),
    )
    if not guardrail.margin > 0 or not guardrail.weight > 0:
        raise ValueError(f"{guardrail.name}: margin and weight must be above 0")
    if bound is not None and not 0 < float(bound) < (math.inf if metric in RATIOS else 1):
        raise ValueError(f"{guardrail.name}: the bound {bound} is out of range")
    return guardrail


def _least(weight: float) -> float:
    """Return a weight that can be used in place of a stored one below the least that is accepted today."""
    return max(weight, LEAST_WEIGHT) if weight > 0 else weight
