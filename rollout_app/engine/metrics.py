"""How each guardrail is measured: which figures it reads, its estimate, and the evidence for and against.

Four measures, one shape: a difference of rates, a ratio of ratios, and both against an absolute bound. "Harm"
is evidence against "the candidate is no worse"; "safe" is evidence against "it is worse by the margin or
more". Logarithms throughout; 0 is no evidence.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import rates, ratios
from rollout_app.engine.stats.capped import Curve, capped_factor, uncapped_factor
from rollout_app.engine.stats.combine import stage_margin
from rollout_app.engine.sufficient import RateStatistics, RatioStatistics

# relative variance of cost per success where none was seen yet; tunes sharpness, never validity
DEFAULT_V = 3.3
_CLOSE = 0.05  # the relative standard error at which an absolute figure is taken from whole costs


class Metric(StrEnum):
    FAILURE = "failure"
    COST_PER_SUCCESS = "cost_per_success"
    ERROR = "error"
    ESCALATION = "escalation"
    FALLBACK = "fallback"
    RETRY = "retry"
    LATENCY_TAIL = "latency_tail"
    COST_TAIL = "cost_tail"
    QUALITY = "quality"


RATIOS = frozenset({Metric.COST_PER_SUCCESS, Metric.QUALITY})
# So rare, and so little moved by the hour, that the baseline before the rollout bounds them.
STEADY = frozenset({Metric.ERROR, Metric.FALLBACK, Metric.RETRY})


def count(metric: Metric, arm: ArmSums) -> tuple[int, int]:
    """(n, x): the tasks that a rate is over, the bad ones among them. Failure leaves out ungraded tasks."""
    match metric:
        case Metric.FAILURE:
            return arm.successes + arm.failures, arm.failures
        case Metric.LATENCY_TAIL:
            return arm.latency_n, arm.latency_above
        case Metric.COST_TAIL:
            return arm.cost_n, arm.cost_above
        case Metric.ERROR:
            return arm.tasks, min(arm.errors, arm.tasks)
        case Metric.ESCALATION:
            return arm.tasks, min(arm.escalations, arm.tasks)
        case Metric.FALLBACK:
            return arm.tasks, min(arm.fallbacks, arm.tasks)
        case Metric.RETRY:
            return arm.tasks, min(arm.retries, arm.tasks)
    raise ValueError(f"{metric} is not a rate")


def moments(metric: Metric, arm: ArmSums) -> ratios.Moments:
    """y and d of a ratio: cost and successes, or score and tasks."""
    if metric is Metric.QUALITY:
        n = arm.quality_n
        return ratios.Moments(n, arm.quality, n, arm.quality_sq, arm.quality, n)
    d = arm.successes
    return ratios.Moments(arm.cost_n, arm.cost, d, arm.cost_sq, arm.cost_on_success, d)


class Measure(Protocol):
    """What a guardrail asks of its sums. `threshold`: margin or bound; `reached`: is the estimate as bad?"""

    threshold: float
    deff: float

    def empty(self) -> Any: ...
    def add(self, sums: Any, candidate: ArmSums, baseline: ArmSums) -> None: ...
    def load(self, data: list[float]) -> Any: ...
    def margin_for(self, share: float) -> float: ...
    def tasks(self, sums: Any) -> tuple[float, float]: ...
    def estimate(self, sums: Any) -> float | None: ...
    def interval(self, sums: Any) -> tuple[float, float] | None: ...
    def reached(self, estimate: float) -> bool: ...
    def harm(self, sums: Any) -> float: ...
    def safe(self, sums: Any, margin: float) -> float: ...


class _RateMeasure:
    """The bookkeeping that both rate measures share."""

    threshold: float

    def __init__(self, metric: Metric, psis: Iterable[float], deff: float) -> None:
        self.metric = metric
        self.psis = tuple(psis)
        self.deff = deff

    def empty(self) -> RateStatistics:
        return RateStatistics(self.psis)

    def load(self, data: list[float]) -> RateStatistics:
        return RateStatistics.load(self.psis, data)

    def add(self, sums: RateStatistics, candidate: ArmSums, baseline: ArmSums) -> None:
        sums.add(*count(self.metric, candidate), *count(self.metric, baseline))

    def reached(self, estimate: float) -> bool:
        return estimate >= self.threshold

    def tasks(self, sums: RateStatistics) -> tuple[float, float]:
        return sums.nt, sums.nc


class RateDifference(_RateMeasure):
    """Candidate against concurrent baseline, in points."""

    def __init__(
        self, metric: Metric, margin: float, cap: float, reference: Reference, shares: Iterable[float]
    ) -> None:
        self.threshold = margin
        self.cap = cap
        self.p_ref = reference.rates.get(metric, 0.0)
        margins = {self.margin_for(share) for share in (*shares, 1.0)}
        self.psi_at = {m: rates.margin_odds_ratio(self.p_ref, m) for m in margins}
        safe = [psi for psi, _ in rates.SAFE_GRID]
        bounds = sorted(psi for psi in self.psi_at.values() if psi is not None)
        super().__init__(metric, dict.fromkeys((*rates.HARM_PSIS, *safe, *bounds)), reference.deff)
        self._place = {psi: i for i, psi in enumerate(self.psis)}

    def margin_for(self, share: float) -> float:
        return stage_margin(self.threshold, self.cap, share)

    def estimate(self, sums: RateStatistics) -> float | None:
        return sums.difference

    def interval(self, sums: RateStatistics) -> tuple[float, float] | None:
        if sums.difference is None:
            return None
        n, x = sums.nt + sums.nc, sums.xt + sums.xc
        return rates.difference_interval(sums.difference, sums.mh_denominator, n, x, self.deff)

    def harm(self, sums: RateStatistics) -> float:
        llrs = sums.llr[: len(rates.HARM_PSIS)]  # they come first
        return rates.log_mixture(llrs, rates.HARM_LOG_WEIGHTS, self.deff)

    def safe(self, sums: RateStatistics, margin: float) -> float:
        """By comparison, or because the candidate alone stays below what the margin allows; either suffices.

        A candidate whose rate is below the margin can't be worse by it, whatever the baseline does. Without
        this route, nothing failing in either arm would never be evidence.
        """
        allowed = margin + (self.p_ref if self.metric in STEADY else 0.0)
        alone = rates.log_e_below(sums.nt, sums.xt, allowed, self.p_ref, self.deff)
        psi = self.psi_at[margin]
        if psi is None:
            return alone
        psis, log_weights = rates.safe_alternatives(psi)
        at_margin = sums.llr[self._place[psi]]
        llrs = [sums.llr[self._place[alternative]] - at_margin for alternative in psis]
        return max(alone, rates.log_mixture(llrs, log_weights, self.deff)) if psis else alone


class RateBound(_RateMeasure):
    """The candidate's rate against an absolute bound."""

    def __init__(self, metric: Metric, bound: float, cap: float, reference: Reference) -> None:
        super().__init__(metric, (), reference.deff)
        self.threshold = bound
        self.cap = cap
        self.p_ref = reference.rates.get(metric, 0.0)

    def margin_for(self, share: float) -> float:
        """The bound itself at full traffic; before, as much more as keeps everybody's rate within it."""
        room = self.threshold - self.p_ref
        return self.p_ref + stage_margin(room, self.cap, share) if room > 0 else self.threshold

    def estimate(self, sums: RateStatistics) -> float | None:
        return sums.xt / sums.nt if sums.nt else None

    def interval(self, sums: RateStatistics) -> tuple[float, float] | None:
        return rates.rate_interval(sums.nt, sums.xt, self.deff) if sums.nt else None

    def harm(self, sums: RateStatistics) -> float:
        return rates.log_e_above(sums.nt, sums.xt, self.threshold, self.deff)

    def safe(self, sums: RateStatistics, margin: float) -> float:
        return rates.log_e_below(sums.nt, sums.xt, margin, self.p_ref, self.deff)


@dataclass(slots=True)
class _RatioMeasure:
    """The bookkeeping that both ratio measures share. `sign` is -1 where lower is the harm (quality)."""

    metric: Metric
    threshold: float
    cap: float
    deff: float
    v_ref: float
    alpha_harm: float
    alpha_safe: float
    curve: Curve = ()  # what capping makes of a change; () where nothing is capped
    kept: float = 1.0  # the share of the baseline's cost that capping leaves
    noise: float = 1.0  # how many times the squared error of whole costs is that of capped ones
    ref: float | None = None  # the baseline's ratio before the rollout; only an absolute bound asks for it

    @property
    def sign(self) -> int:
        return -1 if self.metric is Metric.QUALITY else 1

    def empty(self) -> RatioStatistics:
        return RatioStatistics()

    def load(self, data: list[float]) -> RatioStatistics:
        return RatioStatistics.load(data)

    def add(self, sums: RatioStatistics, candidate: ArmSums, baseline: ArmSums) -> None:
        whole = None
        if self.metric is Metric.COST_PER_SUCCESS:
            whole = candidate.cost_uncapped, baseline.cost_uncapped
        sums.add(moments(self.metric, candidate), moments(self.metric, baseline), whole)

    def reached(self, estimate: float) -> bool:
        return estimate >= self.threshold

    def _precise(self, se2: float, error: float) -> bool:
        return self.noise * se2 <= error * error

    def tasks(self, sums: RatioStatistics) -> tuple[float, float]:
        return sums.candidate.n, sums.baseline.n


class RatioChange(_RatioMeasure):
    """Candidate's ratio over the concurrent baseline's, as a fraction of it."""

    def margin_for(self, share: float) -> float:
        return stage_margin(self.threshold, self.cap, share)

    def estimate(self, sums: RatioStatistics) -> float | None:
        """Of the whole cost, which is what the margin is about, once it is precise enough to tell the margin.

        Until then, and under tails so heavy that it never is, of capped costs translated back.
        """
        ratio, errors = sums.contrast.ratio, self._errors(sums)
        if ratio is None:
            return None
        if self.curve and errors and sums.whole_ratio and self._precise(errors[0], self.threshold / 2):
            return self.sign * (sums.whole_ratio - 1)
        return self.sign * (uncapped_factor(self.curve, ratio) - 1)

    def interval(self, sums: RatioStatistics) -> tuple[float, float] | None:
        """From capped costs, translated back; stretched to the estimate where the two do not agree."""
        errors, estimate = self._errors(sums), self.estimate(sums)
        if errors is None or sums.contrast.ratio is None or estimate is None:
            return None
        bounds = ratios.ratio_interval(sums.contrast.ratio, *errors, self.v_ref)
        low, high = sorted(self.sign * (uncapped_factor(self.curve, bound) - 1) for bound in bounds)
        return min(low, estimate), max(high, estimate)

    def harm(self, sums: RatioStatistics) -> float:
        errors = self._errors(sums, gate=True)
        return self._log_e(sums, errors[0], 0.0, self.sign, self.alpha_harm) if errors else 0.0

    def safe(self, sums: RatioStatistics, margin: float) -> float:
        """Nothing is called safe against the plain estimate: harm in the dearest tasks hides under the cap."""
        errors, estimate = self._errors(sums, gate=True), self.estimate(sums)
        if not errors or estimate is None or estimate >= margin or self.sign * margin <= -1:
            return 0.0
        bound = math.log(capped_factor(self.curve, 1 + self.sign * margin))
        return self._log_e(sums, errors[1], bound, -self.sign, self.alpha_safe)

    def _errors(self, sums: RatioStatistics, *, gate: bool = False) -> tuple[float, float] | None:
        if gate and not ratios.enough(sums.candidate, sums.baseline):
            return None
        return ratios.squared_errors(sums.contrast, sums.candidate, sums.baseline, self.deff)

    def _log_e(self, sums: RatioStatistics, se2: float, log_bound: float, sign: int, alpha: float) -> float:
        log_ratio = math.log(sums.contrast.a / sums.contrast.b)
        return ratios.log_e(sign * log_ratio, sign * log_bound, se2, self.v_ref, alpha)


class RatioBound(_RatioMeasure):
    """The candidate's ratio against a bound: nUSD per success from above, mean quality from below."""

    def margin_for(self, share: float) -> float:
        """The bound itself at full traffic; before, as much more as keeps everybody's cost within it."""
        if not self.ref or self.sign < 0 or self.threshold <= self.ref:
            return self.threshold
        return self.ref * (1 + stage_margin(self.threshold / self.ref - 1, self.cap, share))

    def estimate(self, sums: RatioStatistics) -> float | None:
        ratio, se2 = sums.candidate.ratio, self._error(sums)
        if ratio and se2 and self.curve and sums.whole_y and self._precise(se2, _CLOSE):
            return sums.whole_y / sums.candidate.d
        return None if ratio is None else self._whole(ratio)

    def reached(self, estimate: float) -> bool:
        return self.sign * estimate >= self.sign * self.threshold

    def interval(self, sums: RatioStatistics) -> tuple[float, float] | None:
        se2, ratio, estimate = self._error(sums), sums.candidate.ratio, self.estimate(sums)
        if not se2 or not ratio or estimate is None:
            return None
        low, high = (self._whole(bound) for bound in ratios.ratio_interval(ratio, se2, se2, self.v_ref))
        return min(low, estimate), max(high, estimate)

    def harm(self, sums: RatioStatistics) -> float:
        return self._log_e(sums, self.threshold, self.sign, self.alpha_harm)

    def safe(self, sums: RatioStatistics, margin: float) -> float:
        estimate = self.estimate(sums)
        if estimate is None or self.sign * estimate >= self.sign * margin:
            return 0.0
        return self._log_e(sums, margin, -self.sign, self.alpha_safe)

    def _error(self, sums: RatioStatistics) -> float | None:
        se2 = sums.candidate.squared_error
        return self.deff * se2 if se2 else None

    def _log_e(self, sums: RatioStatistics, bound: float, sign: int, alpha: float) -> float:
        se2, ratio = self._error(sums), sums.candidate.ratio
        if not se2 or not ratio or self.tasks(sums)[0] < ratios.N_MIN or bound <= 0:
            return 0.0
        log_bound = math.log(self._capped(bound))
        return ratios.log_e(sign * math.log(ratio), sign * log_bound, se2, self.v_ref, alpha)

    def _capped(self, ratio: float) -> float:
        """What a cost per success comes to once capped, if it is the baseline's times a factor."""
        if not self.curve or not self.ref:
            return ratio
        return self.ref * self.kept * capped_factor(self.curve, ratio / self.ref)

    def _whole(self, capped: float) -> float:
        """The other way round."""
        if not self.curve or not self.ref:
            return capped
        return self.ref * uncapped_factor(self.curve, capped / (self.ref * self.kept))
