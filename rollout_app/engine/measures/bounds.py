"""Absolute guardrails: the candidate's rate, cost per success or mean quality must stay within a bound."""

import math
from collections.abc import Sequence
from copy import copy

from rollout_app.engine.measures.base import (
    ALL,
    CERTAIN,
    DEFAULT,
    RESTARTS,
    Conditions,
    HarmPart,
    Tuning,
    guarded,
)
from rollout_app.engine.measures.rate_parts import Rate, RatePart
from rollout_app.engine.measures.ratio_parts import Ratio, RatioPart, above_cap
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import missing, rates, ratios
from rollout_app.engine.stats.capped import capped_factor, uncapped_factor
from rollout_app.engine.stats.combine import stage_margin

_CLOSE = 0.05  # the relative standard error from which uncapped costs are used for the estimate


class RateBound(Rate):
    """The candidate's rate, tested against an absolute bound."""

    def __init__(
        self,
        metric: Metric,
        bound: float,
        weight: float,
        reference: Reference,
        restarts: Sequence[int] = (),
        tuning: Tuning = DEFAULT,
    ) -> None:
        super().__init__(metric, (), restarts, tuning, weight)
        self.threshold = bound
        self.cap = metric.spec.cap
        self.p_ref = reference.rates.get(metric, 0.0)

    def margin_for(self, share: float) -> float:
        """Return the bound at full traffic; at a smaller share, a higher one that keeps all traffic within it."""
        room = self.threshold - self.p_ref
        if room <= 0:
            return self.threshold
        # A rate cannot exceed 1: use at most half of the room above the rate before the rollout.
        highest = max(self.threshold, (1 + self.p_ref) / 2)
        return min(self.p_ref + stage_margin(room, self.cap, share), highest)

    def estimate(self, conditions: Conditions) -> float | None:
        stats = self.whole.stats
        return stats.xt / stats.nt if stats.nt else None

    def interval(self, conditions: Conditions) -> tuple[float, float] | None:
        stats = self.whole.stats
        return rates.rate_interval(stats.nt, stats.xt, conditions.deff) if stats.nt else None

    def harm(self, conditions: Conditions) -> list[HarmPart]:
        def one(name: str, weight: float) -> HarmPart:
            return guarded(name, weight, self._harm_part, name, weight, conditions)

        return [one(ALL, 1 - RESTARTS * self.tuning.restart), *self._restarted(one)]

    def _harm_part(self, name: str, weight: float, conditions: Conditions) -> HarmPart:
        part = self.parts[name]
        stats = part.stats
        if not stats.nt:
            return HarmPart(name, weight, 0.0)
        best = stats.nt + round(self._unknown(part, missing.Z_HARM, conditions))  # they succeeded
        log_e = rates.log_e_above(best, stats.xt, self.threshold, conditions.deff)
        return HarmPart(name, weight, log_e, stats.xt / best, stats.xt / best >= self.threshold)

    def safe(self, margin: float, conditions: Conditions) -> float:
        stats = self.whole.stats
        unknown = round(self._unknown(self.whole, missing.Z_SAFE, conditions))  # they failed
        return rates.log_e_within(stats.nt + unknown, stats.xt + unknown, margin, self.p_ref, conditions.deff)

    def safe_after(self, stretch: float, margin: float, conditions: Conditions) -> float:
        return self._after(stretch, conditions).safe(margin, conditions)

    def _unknown(self, part: RatePart, z: float, conditions: Conditions) -> float:
        """Return the number of the candidate's tasks without the figure in excess of the baseline's share."""
        excess = part.missing.excess(z, conditions.deff)
        return excess.tasks if excess.candidate else 0.0


class RatioBound(Ratio):
    """The candidate's ratio, tested against a bound: at most so many nUSD per success, or at least a mean quality."""

    def __init__(
        self,
        metric: Metric,
        bound: float,
        weight: float,
        reference: Reference,
        restarts: Sequence[int] = (),
        tuning: Tuning = DEFAULT,
    ) -> None:
        super().__init__(metric, weight, reference, restarts, tuning)
        self.threshold = bound

    def margin_for(self, share: float) -> float:
        """Return the bound at full traffic; at a smaller share, a higher one that keeps all traffic within it."""
        if not self.ref or self.sign < 0 or self.threshold <= self.ref:
            return self.threshold
        return self.ref * (1 + stage_margin(self.threshold / self.ref - 1, self.cap, share))

    def estimate(self, conditions: Conditions) -> float | None:
        return self._estimate(self.whole, conditions.deff)

    def _estimate(self, part: RatioPart, deff: float) -> float | None:
        arm = part.stats.candidate
        ratio, se2 = arm.ratio, self._error(part, deff)
        if ratio and se2 and self.curve and part.stats.uncapped_y and self._precise(se2, _CLOSE):
            return part.stats.uncapped_y / arm.d
        return None if ratio is None else self._uncapped(ratio)

    def interval(self, conditions: Conditions) -> tuple[float, float] | None:
        se2, ratio = self._error(self.whole, conditions.deff), self.whole.stats.candidate.ratio
        estimate = self._estimate(self.whole, conditions.deff)
        if not se2 or not ratio or estimate is None:
            return None
        low, high = (self._uncapped(bound) for bound in ratios.ratio_interval(ratio, se2, se2, self.v_ref))
        return min(low, estimate), max(high, estimate)

    def harm(self, conditions: Conditions) -> list[HarmPart]:
        def one(name: str, weight: float) -> HarmPart:
            return guarded(name, weight, self._harm_part, name, weight, conditions)

        return [one(ALL, 1 - RESTARTS * self.tuning.restart), *self._restarted(one)]

    def _harm_part(self, name: str, weight: float, conditions: Conditions) -> HarmPart:
        part = self.parts[name]
        lost = self._log_lost_alone(part, False, conditions)
        estimate = self._estimate(part, conditions.deff)
        best = None if estimate is None else estimate * math.exp(self.sign * max(lost, -50.0))
        counted = best is not None and self.sign * best >= self.sign * self.threshold
        log_e = self._log_e(part, self.threshold, self.sign, self.alpha_harm, lost, conditions)
        return HarmPart(name, weight, log_e, best, counted)

    def safe(self, margin: float, conditions: Conditions) -> float:
        estimate = self._estimate(self.whole, conditions.deff)
        lost = self._log_lost_alone(self.whole, True, conditions)
        if self.spec.priced and self._free():
            return 0.0 if lost else CERTAIN
        if estimate is None or self.sign * estimate >= self.sign * margin:
            return 0.0
        return self._log_e(self.whole, margin, -self.sign, self.alpha_safe, lost, conditions)

    def _free(self) -> bool:
        arm = self.whole.stats.candidate
        return arm.n >= self.tuning.least_cost_tasks and arm.d > 0 and arm.y == 0

    def safe_after(self, stretch: float, margin: float, conditions: Conditions) -> float:
        later = copy(self)
        later.parts = {
            ALL: RatioPart(self.whole.stats.after(stretch, 1.0), self.whole.missing.after(stretch))
        }
        return later.safe(margin, conditions)

    def note(self, margin: float, conditions: Conditions) -> str:
        """Return why the guardrail cannot be judged, or cannot pass at `margin`, in one sentence; empty if it can."""
        arm, what = self.whole.stats.candidate, self.whole.missing
        if not what.nt:
            return ""
        if not arm.n:
            return f"No task of the candidate has {'both a cost and a grade' if self.spec.priced else 'a score'}."
        if not arm.d:
            return "No task of the candidate with a cost succeeded, so cost per success is undefined."
        estimate, ratio = self._estimate(self.whole, conditions.deff), arm.ratio
        if not self.curve or self.cost_cap is None or estimate is None or not ratio or estimate < margin:
            return ""
        capped = self._uncapped(ratio)
        if capped >= margin:
            return ""
        return above_cap(f"${estimate / 1e9:.6f}", f"${capped / 1e9:.6f}", self.cost_cap)

    def _log_lost_alone(self, part: RatioPart, safe: bool, conditions: Conditions) -> float:
        """Like `_log_lost`, but only the candidate's missing data matters."""
        z = missing.Z_SAFE if safe else missing.Z_HARM
        excess = part.missing.excess(z, conditions.deff)
        return self._log_lost(part, safe, conditions) if excess.candidate else 0.0

    def _error(self, part: RatioPart, deff: float) -> float | None:
        arm = part.stats.candidate
        if self._log_ratio(part) is None or arm.n < 2:
            return None
        return deff * max(arm.relative_variance or 0.0, 1 / arm.n) * arm.n / (arm.d * arm.d)

    def _log_e(
        self, part: RatioPart, bound: float, sign: int, alpha: float, lost: float, conditions: Conditions
    ) -> float:
        """Return ln E against the wrong side of the bound; `sign` -1 reverses it. `lost` adjusts for missing data."""
        arm = part.stats.candidate
        se2, log_ratio = self._error(part, conditions.deff), self._log_ratio(part)
        few = arm.n < self.tuning.least_cost_tasks
        if not se2 or log_ratio is None or few or bound <= 0 or math.isinf(lost):
            return 0.0
        log_bound = math.log(self._capped(bound))
        shown = sign * log_ratio + (lost if sign == self.sign else -lost)
        return ratios.log_e(shown, sign * log_bound, se2, self.v_ref, alpha)

    def _log_ratio(self, part: RatioPart) -> float | None:
        """Return ln of the candidate's ratio, or None without one.

        If all its scores are 0, they count as half a point in total, because the logarithm of 0 is unusable.
        """
        arm = part.stats.candidate
        if arm.ratio:
            return math.log(arm.ratio)
        return math.log(0.5 / arm.n) if self.sign < 0 and arm.d > 0 else None

    def _capped(self, ratio: float) -> float:
        """Convert a cost per success to the capped one, assuming that it is the baseline's times a factor."""
        if not self.curve or not self.ref:
            return ratio
        return self.ref * self.kept * capped_factor(self.curve, ratio / self.ref)

    def _uncapped(self, capped: float) -> float:
        """Convert a capped cost per success to the uncapped one."""
        if not self.curve or not self.ref:
            return capped
        return self.ref * uncapped_factor(self.curve, capped / (self.ref * self.kept))
