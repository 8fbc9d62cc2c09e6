"""Rate guardrails: the share of bad tasks of the candidate, compared with the concurrent baseline."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rollout_app.engine.measures.base import (
    ALL,
    CERTAIN,
    DEFAULT,
    DIFFERING,
    RESTARTS,
    SHIFT,
    Conditions,
    HarmPart,
    Tuning,
    WindowView,
    guarded,
    since,
    slice_part,
)
from rollout_app.engine.measures.rate_parts import Rate, RatePart
from rollout_app.engine.measures.sufficient import RateStatistics, RateStep
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import missing, rates
from rollout_app.engine.stats.combine import stage_margin, weighted

# Far more harm than units can differ by: tested against an odds ratio of 6, without dividing by the design effect.
SHIFT_GRID, SHIFT_NULL = ((12.0, 0.4), (25.0, 0.3), (100.0, 0.3)), 6.0
_PRIOR_TASKS = 50  # weight of the reference's rate, in tasks, when estimating the rate of the differing tasks
_ENOUGH = 5  # graded tasks per arm that a slice needs to be judged


class RateDifference(Rate):
    """The difference of the candidate's rate from the concurrent baseline's, in points."""

    def __init__(
        self,
        metric: Metric,
        margin: float,
        weight: float,
        reference: Reference,
        shares: Iterable[float],
        restarts: Sequence[int] = (),
        tuning: Tuning = DEFAULT,
    ) -> None:
        self.threshold = margin
        self.cap = metric.spec.cap
        self.p_ref = reference.rates.get(metric, 0.0)
        self.broken_down = metric is Metric.FAILURE
        margins = {self.margin_for(share) for share in (*shares, 1.0)}
        at_margins = [rates.margin_odds_ratio(self.p_ref, margin) for margin in margins]
        bounds = sorted(psi for psi in at_margins if psi is not None)
        shift = [psi for psi, _ in SHIFT_GRID] if self.broken_down and reference.sticky else []
        super().__init__(
            metric,
            dict.fromkeys((*rates.HARM_PSIS, *rates.SAFE_PSIS, *bounds, *shift)),
            restarts,
            tuning,
            weight,
        )
        # For sticky units: the same failures without classes of units; only the difference of rates is kept.
        self.raw: dict[str, RateStatistics] = {}
        self.splits = self.broken_down and reference.sticky

    def margin_for(self, share: float) -> float:
        return stage_margin(self.threshold, self.cap, share)

    # --- taking in -----------------------------------------------------------------------------------

    def take(self, view: WindowView) -> None:
        stage = view.window.stage
        later = [since(at) for at in self.restarts if stage >= at]
        for counts in self._counts(view):
            step = RateStep(counts, self.psis)
            for name in (ALL, *later):
                self._part(name).stats.take(step)
        self._miss(view, [ALL, *later])
        if self.broken_down:
            self._break_down(view)
        if self.splits:
            t, c = view.window.candidate, view.window.baseline
            step = RateStep((t.graded, t.failures, c.graded, c.failures), ())
            for name in (ALL, *later):
                self.raw.setdefault(name, RateStatistics(())).take(step)

    def success_shift(self) -> dict[str, float]:
        """Return, by part, ln of the success ratio of all units over the success ratio among similar units.

        An arm that happens to have units that fail more has a cost per success higher by this amount, without harm.
        """
        shifts = {}
        for name, raw in self.raw.items():
            like = self.parts[name].stats.difference
            if raw.difference is None or like is None or not raw.nc:
                continue
            good = 1 - raw.xc / raw.nc
            if good - raw.difference > 0 and good - like > 0:
                shifts[name] = math.log((good - raw.difference) / (good - like))
        return shifts

    def _break_down(self, view: WindowView) -> None:
        differing = {DIFFERING: view.differing} if view.differing is not None else {}
        slices = {slice_part(name): sums for name, sums in view.slices.items()}
        for name, (candidate, baseline) in {**differing, **slices}.items():
            part = self.parts.get(name)
            if part is None:
                psis = self.psis if name == DIFFERING else rates.HARM_PSIS
                part = self.parts[name] = RatePart(RateStatistics(psis))
            counts = (candidate.graded, candidate.failures, baseline.graded, baseline.failures)
            part.stats.take(RateStep(counts, part.stats.psis))
            part.missing.add(
                candidate.tasks - candidate.graded,
                candidate.tasks,
                baseline.tasks - baseline.graded,
                baseline.tasks,
            )

    def _psis_of(self, name: str) -> tuple[float, ...]:
        return self.psis if name == DIFFERING else super()._psis_of(name)

    def dump(self) -> dict[str, Any]:
        data = super().dump()
        return data | ({"raw": {name: raw.dump() for name, raw in self.raw.items()}} if self.raw else {})

    def load(self, data: Mapping[str, Any]) -> None:
        super().load({name: part for name, part in data.items() if name != "raw"})
        self.raw = {name: RateStatistics.load((), raw) for name, raw in data.get("raw", {}).items()}

    @property
    def _slices(self) -> list[str]:
        return [name for name in self.parts if name.startswith("slice ")]

    def _weights(self, differing: bool, slices: bool) -> dict[str, float]:
        """Return the weights of the parts that cover the whole rollout, except `SHIFT`."""
        tuning = self.tuning
        start = 1 - RESTARTS * tuning.restart
        sliced = start * tuning.slices if slices and self.broken_down else 0.0
        apart = (start - sliced) * tuning.differing if differing and self.broken_down else 0.0
        return {ALL: start - sliced - apart, DIFFERING: apart, "slices": sliced}

    # --- harm ----------------------------------------------------------------------------------------

    def harm(self, conditions: Conditions) -> list[HarmPart]:
        slices = self._telling_slices() if conditions.slices else []
        apart = conditions.differing is not None and DIFFERING in self.parts
        weights = self._weights(apart, bool(slices))
        aside = self.tuning.shift if conditions.sticky and self.broken_down else 0.0

        def one(name: str, weight: float) -> HarmPart:
            weight *= 1 - aside
            return guarded(name, weight, self._harm_part, name, weight, conditions)

        parts = [one(ALL, weights[ALL]), *self._restarted(one)]
        if apart:
            parts.append(one(DIFFERING, weights[DIFFERING]))
        parts += [one(name, weights["slices"] / len(slices)) for name in slices]
        if aside:
            parts.append(guarded(SHIFT, aside, self._shifted, aside, parts[0]))
        return parts

    def _harm_part(self, name: str, weight: float, conditions: Conditions) -> HarmPart:
        part = self.parts[name]
        stats = part.stats
        difference = stats.difference
        if difference is None:
            return HarmPart(name, weight, 0.0)
        excess = self._excess(part, missing.Z_HARM, conditions)
        pt, pc = stats.xt / stats.nt, stats.xc / stats.nc
        best = missing.harm_difference(difference, pt, pc, excess)
        psi = missing.harm_odds_ratio(pc, excess)
        log_e = rates.harm_above(stats.psis, stats.llr, psi, conditions.deff)
        return HarmPart(name, weight, log_e, *self._reached(name, best, conditions))

    def _reached(self, name: str, best: float, conditions: Conditions) -> tuple[float, bool]:
        """Return the part's estimate of the harm, and whether it counts."""
        if name == DIFFERING:
            stats, whole = self.parts[DIFFERING].stats, self.whole.stats
            best *= (stats.nt + stats.nc) / max(1, whole.nt + whole.nc)
        if name.startswith("slice "):
            stats, whole = self.parts[name].stats, self.whole.stats
            of_all = best * (stats.nt + stats.nc) / max(1, whole.nt + whole.nc)
            return best, best >= self.threshold and of_all >= self.threshold / 4
        return best, best >= self.threshold

    def _excess(self, part: RatePart, z: float, conditions: Conditions) -> missing.Excess:
        """Return the excess of missing data over the other arm; for a part, at least the share of all tasks."""
        own = part.missing.excess(z, conditions.deff)
        if part is self.whole:
            return own
        whole = self.whole.missing.excess(z, conditions.deff)
        if whole.share <= own.share:
            return own
        n = part.missing.nt if whole.candidate else part.missing.nc
        return missing.Excess(whole.share, whole.share * n, whole.candidate)

    def _shifted(self, weight: float, whole: HarmPart) -> HarmPart:
        """Return the part for a total failure: far more harm than units can differ by, whatever the design effect."""
        stats = self.whole.stats
        llr = dict(zip(stats.psis, stats.llr, strict=True))
        llrs = [llr[psi] - llr[SHIFT_NULL] for psi, _ in SHIFT_GRID]
        log_e = rates.log_mixture(llrs, [math.log(w) for _, w in SHIFT_GRID])
        return HarmPart(SHIFT, weight, log_e, whole.estimate, whole.counted)

    def _telling_slices(self) -> list[str]:
        """Return the slices with enough tasks to be judged, except one that holds nearly all tasks."""
        whole = self.whole.stats
        enough = []
        for name in self._slices:
            stats = self.parts[name].stats
            if (
                stats.nt >= _ENOUGH
                and stats.nc >= _ENOUGH
                and stats.nt + stats.nc < 0.95 * (whole.nt + whole.nc)
            ):
                enough.append(name)
        return enough

    # --- safe ----------------------------------------------------------------------------------------

    def safe(self, margin: float, conditions: Conditions) -> float:
        if conditions.differing is not None and conditions.differing <= margin:
            return CERTAIN  # even if all differing tasks failed, the harm would stay within the margin
        whole = self._safe_whole(margin, conditions)
        if conditions.differing is None or DIFFERING not in self.parts:
            return whole
        apart = self.tuning.differing
        return weighted([(1 - apart, whole), (apart, self._safe_differing(margin, conditions))])

    def _safe_whole(self, margin: float, conditions: Conditions) -> float:
        """Return the evidence from the comparison, or from the candidate's rate alone if that is stronger.

        A candidate with a rate below the margin cannot be worse by the margin, whatever the baseline does. Without this
        second route, there would never be evidence if nothing fails in either arm.
        """
        stats = self.whole.stats
        excess = self._excess(self.whole, missing.Z_SAFE, conditions)
        p = rates.level(stats.nc, stats.xc, self.p_ref, conditions.deff)
        compared = self._compared(stats, p, margin, excess, conditions.deff)
        allowed = margin + (self.p_ref if self.spec.steady else 0.0)
        unknown = round(excess.tasks) if excess.candidate else 0
        alone = rates.log_e_alone(
            stats.nt + unknown, stats.xt + unknown, allowed, self.p_ref, conditions.deff
        )
        return max(alone, compared)

    def _safe_differing(self, margin: float, conditions: Conditions) -> float:
        """Return the evidence from the differing tasks, which alone can carry an effect.

        Their margin is the margin of all tasks divided by their share. This follows trigger-dilute analysis: A. Deng
        and others, arXiv 2112.13299.
        """
        part = self.parts[DIFFERING]
        stats, share = part.stats, conditions.differing or 1.0
        p = (stats.xc + _PRIOR_TASKS * self.p_ref) / (stats.nc + _PRIOR_TASKS)
        excess = self._excess(part, missing.Z_SAFE, conditions)
        return self._compared(stats, p, margin / share, excess, conditions.deff)

    def _compared(
        self, stats: RateStatistics, p: float, margin: float, excess: missing.Excess, deff: float
    ) -> float:
        adjusted = missing.safe_margin(margin, p, excess)
        psi = rates.margin_odds_ratio(p, adjusted) if adjusted > 0 else None
        if psi is None or psi <= 1:
            return 0.0 if adjusted > 0 else -math.inf
        psi = min(psi, rates.HARM_PSIS[-1])  # the grid for units goes further, but is not for safe claims
        places, log_weights = rates.safe_alternatives(psi)
        at_margin = self._llr_at(stats, psi)
        llrs = [stats.llr[place] - at_margin for place in places]
        return rates.log_mixture(llrs, log_weights, deff)

    def _llr_at(self, stats: RateStatistics, psi: float) -> float:
        if psi in self.psis:
            return stats.llr[self.psis.index(psi)]
        return rates.log_ratio_at(self.psis, stats.llr, psi)

    # --- display -------------------------------------------------------------------------------------

    def estimate(self, conditions: Conditions) -> float | None:
        return self.whole.stats.difference

    def interval(self, conditions: Conditions) -> tuple[float, float] | None:
        stats = self.whole.stats
        if stats.difference is None:
            return None
        n, x = stats.nt + stats.nc, stats.xt + stats.xc
        return rates.difference_interval(stats.difference, stats.mh_denominator, n, x, conditions.deff)

    def safe_after(self, stretch: float, margin: float, conditions: Conditions) -> float:
        return self._after(stretch, conditions).safe(margin, conditions)
