"""Ratios: cost per success (y = cost, d = successes) and mean quality (y = score, d = tasks).

The arms' ratios are compared within strata by Mantel-Haenszel-like sums A and B, so that a drift of price or success
through the day cancels out. The logarithm of A / B feeds the normal mixture. Sources: Howard et al. 2021; Waudby-Smith,
Arbour, Sinha, Kennedy, Ramdas, arXiv 2103.06476.
"""

import math
from collections.abc import Iterable
from operator import add

from rollout_app.engine.stats.mixture import bound_normal, log_e_normal, rho_for
from rollout_app.engine.stats.rates import N_OPT
from rollout_app.engine.values import value

N_MIN = 100  # tasks per arm from which the normal approximation is trusted
V_LEAST = 0.01  # lower limit of a baseline's relative variance per task, which rounding can make too small
_WIDEST = 50.0  # maximum half-width of an interval, in ln, so that its ends do not overflow

Errors = tuple[float, float]


@value(frozen=True, slots=True)
class Moments:
    """One arm's sums over its n tasks: y, d, their squares and their product."""

    n: float = 0
    y: float = 0
    d: float = 0
    yy: float = 0
    yd: float = 0
    dd: float = 0

    @property
    def figures(self) -> tuple[float, ...]:
        """The values in the order of the fields. `astuple` is too slow here, because it copies deeply."""
        return self.n, self.y, self.d, self.yy, self.yd, self.dd

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*map(add, self.figures, other.figures))

    @property
    def ratio(self) -> float | None:
        """y / d; None, never 0, if d is 0: without a success there is no cost per success."""
        return self.y / self.d if self.d > 0 else None

    @property
    def squared_error(self) -> float | None:
        """The squared standard error of ln(y/d) in this arm alone; None if unknown or 0."""
        v = self.relative_variance
        return v * self.n / (self.d * self.d) if v else None

    @property
    def relative_variance(self) -> float | None:
        """v: the variance per task of y - R d, in units of R² (delta method); None if it is undefined."""
        if self.d <= 0 or self.y <= 0 or self.n < 2:
            return None
        ratio = self.y / self.d
        my, md = self.y / self.n, self.d / self.n
        var_y, var_d = self.yy / self.n - my * my, self.dd / self.n - md * md
        cov = self.yd / self.n - my * md
        spread = max(0.0, var_y - 2 * ratio * cov + ratio * ratio * var_d)
        return spread / (ratio * ratio) * self.n / (self.n - 1)


@value(frozen=True, slots=True)
class Contrast:
    """The strata's weighted sums: a = sum yT wC, b = sum yC wT, qa = sum wC² nT, qb = sum wT² nC."""

    a: float = 0.0
    b: float = 0.0
    qa: float = 0.0
    qb: float = 0.0

    @property
    def figures(self) -> tuple[float, ...]:
        return self.a, self.b, self.qa, self.qb

    def __add__(self, other: "Contrast") -> "Contrast":
        return Contrast(*map(add, self.figures, other.figures))

    @property
    def ratio(self) -> float | None:
        return self.a / self.b if self.a > 0 and self.b > 0 else None


def contrast(candidate: Moments, baseline: Moments) -> Contrast:
    """Return one stratum's contribution; empty if neither arm had a success."""
    d = candidate.d + baseline.d
    if d <= 0:
        return Contrast()
    wc, wt = baseline.d / d, candidate.d / d
    return Contrast(candidate.y * wc, baseline.y * wt, wc * wc * candidate.n, wt * wt * baseline.n)


def added(parts: Iterable[Moments]) -> Moments:
    """Add up the sums of many strata at once, which is faster than one after the other."""
    return Moments(*map(sum, zip(*(part.figures for part in parts), strict=True)))


def contrasts(strata: Iterable[tuple[Moments, Moments]]) -> Contrast:
    """Add up the contributions of strata, each (candidate, baseline)."""
    return Contrast(*map(sum, zip(*(contrast(*pair).figures for pair in strata), strict=True)))


def log_ratio(c: Contrast, candidate: Moments) -> float | None:
    """Return ln of the candidate's ratio over the baseline's, or None if it is undefined.

    If the candidate cost nothing and the baseline did not, the ratio is 0 and its logarithm is unusable. Then the
    candidate counts as if all its tasks together had cost half of one baseline task.
    """
    if c.b <= 0:
        return None
    if c.a > 0:
        return math.log(c.a) - math.log(c.b)
    return math.log(0.5 / candidate.n) if candidate.y == 0 else None  # b > 0, so it has successes, and tasks


def squared_errors(c: Contrast, candidate: Moments, baseline: Moments, deff: float) -> Errors | None:
    """Return the squared standard errors of ln ratio: as observed, and for a claim of safety. None without a ratio.

    A claim of safety never benefits from a candidate that by chance varied less than the baseline. The variance of an
    arm of n tasks is at least 1/n, because constant costs would otherwise leave none, or only rounding errors.
    """
    rc = baseline.ratio
    if c.b <= 0 or not rc or min(candidate.n, baseline.n) < 2 or candidate.d <= 0:
        return None
    vt, vc = (max(arm.relative_variance or 0.0, 1 / arm.n) for arm in (candidate, baseline))
    # In each arm, ratio over weighted sum is 1 / (harmonic mean of successes), so if a is 0, use b instead.
    weight_c = rc / c.b
    weight_t = (candidate.ratio or 0.0) / c.a if c.a > 0 else weight_c
    part_t, part_c = c.qa * weight_t**2, c.qb * weight_c**2
    own, safe = deff * (part_t * vt + part_c * vc), deff * (part_t * max(vt, vc) + part_c * vc)
    return (own, safe) if own > 0 else None


def enough(candidate: Moments, baseline: Moments, least: int = N_MIN) -> bool:
    return min(candidate.n, baseline.n) >= least


def log_e(log_ratio: float, log_bound: float, se2: float, v_ref: float, alpha: float) -> float:
    """Return ln E against "ratio <= bound"; for "ratio >= bound", pass the negatives of both logarithms."""
    v = 1 / se2
    return log_e_normal((log_ratio - log_bound) * v, v, rho_for(N_OPT / max(v_ref, V_LEAST), alpha))


def ratio_interval(
    ratio: float, own: float, safe: float, v_ref: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Return one-sided bounds at level alpha each, the upper one with the variance of a safety claim. For display."""
    rho = rho_for(N_OPT / max(v_ref, V_LEAST), alpha)
    low, high = (min(bound_normal(1 / se2, alpha, rho) * se2, _WIDEST) for se2 in (own, safe))
    return ratio * math.exp(-low), ratio * math.exp(high)
