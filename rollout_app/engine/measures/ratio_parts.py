"""The stored sums of ratio guardrails: moments of cost and success (or of scores) per part, and missing tasks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rollout_app.engine.measures.base import ALL, Conditions, Tuning, WindowView, since
from rollout_app.engine.measures.parts import Parted
from rollout_app.engine.measures.sufficient import MissingStatistics, RatioStatistics, merged
from rollout_app.engine.metrics import Metric, moments
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import missing, ratios
from rollout_app.engine.stats.capped import Curve
from rollout_app.engine.stats.combine import ALPHA

# relative variance of cost per success if none is known yet; affects the power, not the validity
DEFAULT_V = 3.3


@dataclass(slots=True)
class RatioPart:
    """The statistics of one part's tasks, and of its tasks without a known cost or grade."""

    stats: RatioStatistics = field(default_factory=RatioStatistics)
    missing: MissingStatistics = field(default_factory=MissingStatistics)

    def dump(self) -> dict[str, list[float]]:
        data = {"ratios": self.stats.dump()}
        if self.missing.nt or self.missing.nc:
            data["missing"] = self.missing.dump()
        return data

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        return cls(RatioStatistics.load(data["ratios"]), MissingStatistics(*data.get("missing", ())))


class Ratio(Parted[RatioPart]):
    """Common base of both ratio measures. `sign` is -1 if a lower ratio is the harm (quality)."""

    threshold: float

    def __init__(
        self, metric: Metric, weight: float, reference: Reference, restarts: Sequence[int], tuning: Tuning
    ) -> None:
        self.metric, self.spec, self.weight = metric, metric.spec, weight
        super().__init__(restarts, tuning)
        self.sign = -1 if metric.spec.lower_is_worse else 1
        self.cap = metric.spec.cap
        priced = metric.spec.priced
        v_ref = reference.cost_v if priced else reference.quality_v
        self.v_ref = max(v_ref or DEFAULT_V, ratios.V_LEAST)
        self.alpha_harm, self.alpha_safe = ALPHA * weight, ALPHA
        self.curve: Curve = reference.cost_curve if priced else ()
        self.kept = reference.cost_kept
        self.noise = reference.tail_noise if priced else 1.0
        self.ref = reference.cost_per_success if priced else reference.mean_quality
        self.cost_cap = reference.cost_cap_nusd

    def _new_part(self) -> RatioPart:
        return RatioPart()

    def tasks(self) -> tuple[float, float]:
        return self.whole.stats.candidate.n, self.whole.stats.baseline.n

    def take(self, view: WindowView) -> None:
        stage = view.window.stage
        for name in (ALL, *(since(at) for at in self.restarts if stage >= at)):
            self._take(self._part(name), view)

    def _take(self, part: RatioPart, view: WindowView) -> None:
        candidate, baseline = view.window.candidate, view.window.baseline
        uncapped = None
        if self.spec.priced:
            uncapped = candidate.costs.uncapped_cost, baseline.costs.uncapped_cost
        part.stats.add(moments(self.metric, candidate), moments(self.metric, baseline), uncapped)
        without = view.no_cost if self.spec.priced else self._no_score(view)
        if view.alone:
            part.missing.add_alone(*without[:2], self.whole.missing)
        else:
            part.missing.add(*without)

    def _no_score(self, view: WindowView) -> tuple[int, int, int, int]:
        mt, nt, mc, nc = view.no_grade
        arms = view.window.candidate, view.window.baseline
        scored = [min(arm.quality_n, n) for arm, n in zip(arms, (nt, nc), strict=True)]
        return nt - scored[0], nt, nc - scored[1], nc

    def load(self, data: Mapping[str, Any]) -> None:
        for name, part in data.items():
            self.parts[name] = RatioPart.load(part)

    def load_older(self, by_stage: Mapping[int, Sequence[Any]]) -> None:
        """Load the sums per stage of format 4."""
        loaded = {stage: RatioStatistics.load(data) for stage, data in by_stage.items()}
        self.parts[ALL].stats = merged(loaded, RatioStatistics())
        for at in self.restarts:
            if any(stage >= at for stage in loaded):
                self._part(since(at)).stats = merged(loaded, RatioStatistics(), at)

    def record(self) -> dict[str, Any]:
        return {
            name: part.stats.as_dict() | {"missing": part.missing.as_dict()}
            for name, part in self.parts.items()
        }

    def _precise(self, se2: float, error: float) -> bool:
        return self.noise * se2 <= error * error

    def _log_lost(self, part: RatioPart, safe: bool, conditions: Conditions) -> float:
        """Return the correction of sign * ln ratio for missing data: the worst case if `safe`, else the best case."""
        excess = part.missing.excess(missing.Z_SAFE if safe else missing.Z_HARM, conditions.deff)
        if not excess.share:
            return 0.0
        stats = part.stats
        if not self.spec.priced:
            return _log_quality_lost(excess, stats, safe)
        if safe:
            # Without any cost, it counts as in `ratios.log_ratio`: half of one baseline task in total.
            spent = stats.candidate.y or 0.5 * stats.baseline.y / max(1, stats.baseline.n)
            return missing.log_cost_worst(excess, self.cost_cap, spent, stats.baseline.d)
        return -missing.log_cost_best(excess, self.cost_cap, stats.baseline.y, stats.candidate.d)


def above_cap(uncapped: str, capped: str, cap: int) -> str:
    """Return the sentence on a figure that only the costs above the cap keep from passing."""
    return (
        f"{uncapped} with all costs, {capped} with each task's cost capped at ${cap / 1e9:.6f}: a few expensive tasks "
        "make the difference, and nothing is safe while all costs together reach the limit."
    )


def _log_quality_lost(excess: missing.Excess, stats: RatioStatistics, safe: bool) -> float:
    """Return the same correction for mean quality (0 … 1): missing scores count as 0 or 1, depending on the case."""
    e, arm = excess.share, stats.candidate if excess.candidate else stats.baseline
    mean = arm.ratio
    if not mean or e >= 1:
        return math.inf if safe else -math.inf
    log_low, log_high = math.log1p(-e), math.log(mean * (1 - e) + e) - math.log(mean)
    if excess.candidate:  # a lower mean of the candidate is harm
        return -log_low if safe else -max(log_high, 0.0)
    return max(log_high, 0.0) if safe else log_low
