"""Ratio guardrails: the candidate's cost per success or mean quality, compared with the concurrent baseline."""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from rollout_app.engine.evidence import GradedCosts, SliceSums
from rollout_app.engine.measures.base import (
    ALL,
    CERTAIN,
    DEFAULT,
    DIFFERING,
    EXACT,
    RESTARTS,
    Conditions,
    HarmPart,
    Tuning,
    WindowView,
    guarded,
    kept_of,
)
from rollout_app.engine.measures.ratio_parts import Ratio, RatioPart, above_cap
from rollout_app.engine.measures.sufficient import (
    MissingStatistics,
    RateStatistics,
    RateStep,
    RatioStatistics,
)
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import missing, rates, ratios
from rollout_app.engine.stats.capped import capped_factor, uncapped_factor
from rollout_app.engine.stats.combine import stage_margin, weighted

_QUANTILES = (
    "over 50",
    "over 75",
    "over 90",
)  # the exact test's thresholds: shares of the baseline's costs below


class RatioChange(Ratio):
    """The relative change of the candidate's ratio from the concurrent baseline's."""

    def __init__(
        self,
        metric: Metric,
        margin: float,
        weight: float,
        reference: Reference,
        restarts: Sequence[int] = (),
        tuning: Tuning = DEFAULT,
    ) -> None:
        super().__init__(metric, weight, reference, restarts, tuning)
        self.threshold = margin
        exact = metric.spec.priced and reference.cost_quantiles is not None and tuning.exact_cost > 0
        self.over = [RateStatistics(rates.HARM_PSIS) for _ in _QUANTILES] if exact else []
        self.over_missing = MissingStatistics()  # tasks without a known cost

    def margin_for(self, share: float) -> float:
        return stage_margin(self.threshold, self.cap, share)

    # --- taking in -----------------------------------------------------------------------------------

    def take(self, view: WindowView) -> None:
        super().take(view)
        if not self.spec.priced:
            return
        if view.differing is not None:
            self._take_slice(self._part(DIFFERING), *view.differing)
        if self.over:
            self._take_over(view)

    @staticmethod
    def _take_slice(part: RatioPart, candidate: SliceSums, baseline: SliceSums) -> None:
        t, c = candidate.costs, baseline.costs
        part.stats.add(_moments(t), _moments(c), (t.uncapped_cost, c.uncapped_cost))
        part.missing.add(candidate.tasks - t.n, candidate.tasks, baseline.tasks - c.n, baseline.tasks)

    def _take_over(self, view: WindowView) -> None:
        candidate, baseline = view.window.candidate, view.window.baseline
        for stats, xt, xc in zip(self.over, candidate.cost_over, baseline.cost_over, strict=True):
            counts = (candidate.cost_n, min(xt, candidate.cost_n), baseline.cost_n, min(xc, baseline.cost_n))
            stats.take(RateStep(counts, rates.HARM_PSIS))
        _, nt, _, nc = view.no_cost
        self.over_missing.add(nt - min(candidate.cost_n, nt), nt, nc - min(baseline.cost_n, nc), nc)

    def dump(self) -> dict[str, Any]:
        data = super().dump()
        if self.over:
            data[EXACT] = {"over": [stats.dump() for stats in self.over], "missing": self.over_missing.dump()}
        return data

    def load(self, data: Mapping[str, Any]) -> None:
        super().load({name: part for name, part in data.items() if name != EXACT})
        if EXACT in data and self.over:
            self.over = [RateStatistics.load(rates.HARM_PSIS, dumped) for dumped in data[EXACT]["over"]]
            self.over_missing = MissingStatistics(*data[EXACT]["missing"])

    def record(self) -> dict[str, Any]:
        data = super().record()
        for name, stats in zip(_QUANTILES, self.over, strict=False):
            data[name] = stats.as_dict() | {"missing": self.over_missing.as_dict()}
        return data

    # --- harm ----------------------------------------------------------------------------------------

    def harm(self, conditions: Conditions) -> list[HarmPart]:
        start = 1 - RESTARTS * self.tuning.restart
        exact = start * self.tuning.exact_cost if self.over else 0.0
        apart = 0.0
        if conditions.differing is not None and DIFFERING in self.parts:
            apart = (start - exact) * self.tuning.differing

        def one(name: str, weight: float) -> HarmPart:
            return guarded(name, weight, self._harm_part, name, weight, conditions)

        parts = [one(ALL, start - exact - apart), *self._restarted(one)]
        if apart:
            parts.append(one(DIFFERING, apart))
        if exact:
            estimate = parts[0].estimate
            parts.append(guarded(EXACT, exact, self._exact, exact, estimate, conditions))
        return parts

    def _harm_part(self, name: str, weight: float, conditions: Conditions) -> HarmPart:
        part = self.parts[name]
        lost = self._log_lost(part, False, conditions)
        best = self._best_estimate(name, lost, conditions)
        if best is not None and name == DIFFERING:
            best = self._of_all(best, conditions)
        counted = best is not None and best >= self.threshold
        log_r, errors = self._log_ratio(name, conditions), self._errors(part, conditions, gate=True)
        log_e = 0.0
        if log_r is not None and errors is not None and not math.isinf(lost):
            shown = self.sign * log_r + lost
            log_e = ratios.log_e(shown, 0.0, errors[0], self.v_ref, self.alpha_harm)
        return HarmPart(name, weight, log_e, best, counted)

    def _best_estimate(self, name: str, lost: float, conditions: Conditions) -> float | None:
        """Return the change (positive is harm) in the best case for the excess of missing data."""
        estimate = self._shifted(name, conditions)
        if estimate is None or not lost:
            return estimate
        if not math.isfinite(lost):
            return None
        return self.sign * ((1 + self.sign * estimate) * math.exp(self.sign * lost) - 1)

    def _of_all(self, change: float, conditions: Conditions) -> float:
        """Convert a change among the differing tasks to a change over all tasks."""
        return change * self._share_of(DIFFERING)

    def _share_of(self, name: str) -> float:
        """Return the part's share of the baseline's cost or of its successes, whichever is greater.

        It is an upper bound of the part's effect on all tasks.
        """
        ours, whole = self.parts[name].stats.baseline, self.whole.stats.baseline
        if not whole.y or not whole.d:
            return 1.0
        return min(1.0, max(ours.y / whole.y, ours.d / whole.d))

    def _exact(self, weight: float, estimate: float | None, conditions: Conditions) -> HarmPart:
        """Test whether more of the candidate's tasks exceed the baseline's 50th, 75th and 90th percentile of cost.

        The test is exact at any number of tasks, but ignores successes, so it counts only while the ratio itself is
        at least as bad as the margin. An arm's excess of tasks without a known cost is treated as cheap.
        """
        excess = self.over_missing.excess(missing.Z_HARM, conditions.deff)
        log_es = []
        for stats in self.over:
            pc = stats.xc / stats.nc if stats.nc else 0.0
            psi = missing.harm_odds_ratio(pc, excess)
            log_es.append(rates.harm_above(stats.psis, stats.llr, psi, conditions.deff))
        log_e = weighted([(1 / len(log_es), value) for value in log_es])
        enough = ratios.enough(
            self.whole.stats.candidate, self.whole.stats.baseline, self.tuning.least_cost_tasks
        )
        counted = enough and estimate is not None and estimate >= self.threshold
        return HarmPart(EXACT, weight, log_e, estimate, counted)

    # --- safe ----------------------------------------------------------------------------------------

    def safe(self, margin: float, conditions: Conditions) -> float:
        whole = self._safe_part(ALL, margin, conditions)
        if conditions.differing is None or DIFFERING not in self.parts:
            return whole
        share = self._share_of(DIFFERING)
        n = max(1.0, self.parts[DIFFERING].stats.baseline.n)
        share = min(1.0, share * (1 + 2 * math.sqrt(self.v_ref / n)))
        apart = self.tuning.differing
        among = self._safe_part(DIFFERING, margin / share, conditions) if share else 0.0
        return weighted([(1 - apart, whole), (apart, among)])

    def _safe_part(self, name: str, margin: float, conditions: Conditions) -> float:
        """Return the evidence of safety, or 0 if the uncapped estimate reaches the margin.

        Otherwise the cap could hide harm in the most expensive tasks.
        """
        part = self.parts[name]
        stats, lost = part.stats, self._log_lost(part, True, conditions)
        if self._both_free(stats):
            excess = part.missing.excess(missing.Z_SAFE, conditions.deff)
            return 0.0 if excess.share and excess.candidate else CERTAIN  # it could be a rise from nothing
        log_r, errors = self._log_ratio(name, conditions), self._errors(part, conditions, gate=True)
        estimate = self._shifted(name, conditions)
        if errors is None or log_r is None or estimate is None or math.isinf(lost):
            return 0.0
        if self.sign * margin <= -1:  # a loss of 100 % or more: any score above 0 rules it out
            return CERTAIN if stats.candidate.y > 0 else 0.0
        if estimate >= margin:
            return 0.0
        bound = math.log(capped_factor(self.curve, 1 + self.sign * margin))
        shown = -self.sign * log_r - lost
        return ratios.log_e(shown, -self.sign * bound, errors[1], self.v_ref, self.alpha_safe)

    def _both_free(self, stats: RatioStatistics) -> bool:
        """Return whether the tasks of both arms are free, with enough known costs to be sure."""
        enough = ratios.enough(stats.candidate, stats.baseline, self.tuning.least_cost_tasks)
        return self.spec.priced and enough and not stats.candidate.y and not stats.baseline.y

    def _log_ratio(self, name: str, conditions: Conditions) -> float | None:
        stats = self.parts[name].stats
        log_r = ratios.log_ratio(stats.contrast, stats.candidate)
        return None if log_r is None else log_r + self._shift(name, conditions)

    def _shift(self, name: str, conditions: Conditions) -> float:
        return conditions.success_shift.get(name, 0.0) if self.spec.priced else 0.0

    def _shifted(self, name: str, conditions: Conditions) -> float | None:
        """Return the part's estimate, adjusted for units whose failure rates differ anyway."""
        estimate, shift = self._estimate(self.parts[name], conditions.deff), self._shift(name, conditions)
        return estimate if estimate is None or not shift else (1 + estimate) * math.exp(shift) - 1

    def _errors(
        self, part: RatioPart, conditions: Conditions, *, gate: bool = False
    ) -> tuple[float, float] | None:
        stats = part.stats
        if gate and not ratios.enough(stats.candidate, stats.baseline, self.tuning.least_cost_tasks):
            return None
        return stats.squared_errors(conditions.deff)

    # --- display -------------------------------------------------------------------------------------

    def estimate(self, conditions: Conditions) -> float | None:
        return self._estimate(self.whole, conditions.deff)

    def _estimate(self, part: RatioPart, deff: float) -> float | None:
        """Return the change of the uncapped cost, to which the margin applies, once it is precise enough.

        Until then (or always, with a very heavy tail), return the change of capped costs, converted back.
        """
        stats = part.stats
        if self._both_free(stats):
            return 0.0
        if stats.contrast.b <= 0 or not stats.candidate.d:
            return None
        ratio = stats.contrast.ratio
        if ratio is None:
            known = ratios.log_ratio(stats.contrast, stats.candidate) is not None
            return -1.0 * self.sign if known else None  # free is no harm, but a quality of 0 is
        errors = stats.squared_errors(deff)
        if self.curve and errors and stats.uncapped_ratio and self._precise(errors[0], self.threshold / 2):
            return self.sign * (stats.uncapped_ratio - 1)
        return self.sign * (uncapped_factor(self.curve, ratio) - 1)

    def interval(self, conditions: Conditions) -> tuple[float, float] | None:
        """Return the interval from capped costs, converted back, and extended to include the estimate."""
        stats = self.whole.stats
        errors = self._errors(self.whole, conditions)
        estimate = self._estimate(self.whole, conditions.deff)
        if errors is None or stats.contrast.ratio is None or estimate is None:
            return None
        bounds = ratios.ratio_interval(stats.contrast.ratio, *errors, self.v_ref)
        low, high = sorted(self.sign * (uncapped_factor(self.curve, bound) - 1) for bound in bounds)
        return min(low, estimate), max(high, estimate)

    def note(self, margin: float, conditions: Conditions) -> str:
        """Return why the guardrail cannot be judged, or cannot pass at `margin`, in one sentence; empty if it can."""
        stats, what = self.whole.stats, self.whole.missing
        if not (what.nt and what.nc):
            return ""
        arms = {"candidate": stats.candidate, "baseline": stats.baseline}
        if silent := [name for name, arm in arms.items() if not arm.n]:
            needed = "both a cost and a grade" if self.spec.priced else "a score"
            return f"No task of the {' or the '.join(silent)} has {needed}."
        if failing := [name for name, arm in arms.items() if not arm.d]:
            return f"No task of the {' or the '.join(failing)} with a cost succeeded, so cost per success is undefined."
        if stats.baseline.y == 0 and (stats.candidate.y > 0 or not self.spec.priced):
            nothing = "tasks cost nothing" if self.spec.priced else "mean quality is 0"
            return f"The baseline's {nothing}, so a relative change is undefined."
        excess = what.excess(missing.Z_SAFE)
        if self._both_free(stats) and excess.share and excess.candidate:
            return (
                f"Known costs are 0, but {what.mt / what.nt * 100:.1f} % of the candidate's tasks have no known cost, "
                f"{what.mc / what.nc * 100:.1f} % of the baseline's."
            )
        return self._few_expensive_tasks(margin, conditions)

    def _few_expensive_tasks(self, margin: float, conditions: Conditions) -> str:
        """Return a sentence if only the costs above the cap keep the guardrail from passing."""
        estimate, ratio = self._estimate(self.whole, conditions.deff), self.whole.stats.contrast.ratio
        if not self.curve or self.cost_cap is None or estimate is None or ratio is None or estimate < margin:
            return ""
        capped = self.sign * (uncapped_factor(self.curve, ratio) - 1)
        return "" if capped >= margin else above_cap(_percent(estimate), _percent(capped), self.cost_cap)

    def safe_after(self, stretch: float, margin: float, conditions: Conditions) -> float:
        """Return the evidence of safety, extrapolated by `stretch` times as many tasks, with the change shrunk."""
        later = copy(self)
        later.parts = {}
        for name in (ALL, DIFFERING):
            if part := self.parts.get(name):
                later.parts[name] = RatioPart(
                    self._after(part, stretch, conditions), part.missing.after(stretch)
                )
        return later.safe(margin, conditions)

    def _after(self, part: RatioPart, stretch: float, conditions: Conditions) -> RatioStatistics:
        stats = part.stats
        log_r = ratios.log_ratio(stats.contrast, stats.candidate)
        errors = self._errors(part, conditions)
        kept = kept_of(self.threshold, errors[0]) if errors is not None else 0.0
        # Over all tasks, ln ratio is the weighted mean of past and future tasks.
        factor = math.exp(-(log_r or 0.0) * (1 - kept) * stretch / (1 + stretch))
        return stats.after(stretch, factor)


def _percent(change: float) -> str:
    return f"{change * 100:+.1f} %"


def _moments(costs: GradedCosts) -> ratios.Moments:
    d = costs.successes
    return ratios.Moments(costs.n, costs.cost, d, costs.cost_sq, costs.cost_on_success, d)
