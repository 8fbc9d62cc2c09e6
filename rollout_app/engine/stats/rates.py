"""Rates: x bad of n tasks per arm, compared within strata by the conditional odds ratio.

Given the number of bad tasks in both arms together, the candidate's part is hypergeometric if the arms are equal, and
Fisher's noncentral hypergeometric at odds ratio psi. Changes of the rate through the day cancel out. Sources: Turner &
Grünwald, arXiv 2302.11401; Lindon & Malek, arXiv 2011.03567; Mantel & Haenszel 1959.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from operator import add

from rollout_app.engine.stats.combine import log_sum_exp
from rollout_app.engine.stats.mixture import bound_normal, rho_for

# (odds ratio, weight): from small harms that need many tasks, to a candidate that fails nearly everything.
HARM_GRID = ((1.2, 0.15), (1.5, 0.30), (2.0, 0.30), (3.0, 0.15), (6.0, 0.06), (25.0, 0.04))
SAFE_GRID = ((0.65, 0.10), (0.8, 0.20), (1.0, 0.50), (1.1, 0.20))
HARM_PSIS = tuple(psi for psi, _ in HARM_GRID)
SAFE_PSIS = tuple(psi for psi, _ in SAFE_GRID)
HARM_LOG_PSIS = tuple(math.log(psi) for psi in HARM_PSIS)
HARM_LOG_WEIGHTS = tuple(math.log(weight) for _, weight in HARM_GRID)
# The log likelihood ratio at an odds ratio that older stored evidence lacks. Windows are added to it, so any value
# near it is unknown as well. A known ratio never comes near it: that would take 10^14 tasks.
UNSEEN = -1e15
WITHIN_PSIS = (0.05, 0.2, 0.5, 0.7, 0.85)  # from a candidate far below a bound to one just below it
NEARER = 0.1  # weight, in evidence of safety, of candidates that are nearer to the margin than usual ones
_FIRST_NEARER, _APART = 1, 1.4  # from the odds ratio 1.5 on, and at most the margin's divided by 1.4
N_OPT = 500  # number of tasks at which intervals and cost evidence are sharpest

_NEGLIGIBLE = 1e-17
_SHORT = 32  # terms: 25^32 times the binomials stays far below the largest double


def stratum_llrs(nt: int, xt: int, nc: int, xc: int, psis: Sequence[float]) -> list[float]:
    """Return the ln likelihood ratio of each odds ratio against 1: `xt ln psi - ln sum_j h(j) psi^j`.

    nt, nc are the tasks and xt, xc the bad tasks of candidate and baseline; h is the hypergeometric probability of j
    bad tasks in the candidate. All values are 0 if an arm is empty, or if no or all tasks are bad: then the stratum
    has no information.
    """
    bad = xt + xc
    if not nt or not nc or not bad or bad == nt + nc:
        return [0.0] * len(psis)
    if min(bad, nt) - max(0, bad - nc) <= _SHORT:
        return _short_llrs(nt, xt, nc, bad, psis)
    return [xt * math.log(psi) - _log_tilted_sum(nt, nc, bad, psi) for psi in psis]


def _short_llrs(nt: int, xt: int, nc: int, bad: int, psis: Sequence[float]) -> list[float]:
    """Return the same for few terms: compute their weights once, up to a factor, then a polynomial in each psi."""
    low, high = max(0, bad - nc), min(bad, nt)
    weights = [1.0]
    for j in range(low, high):
        weights.append(weights[-1] * ((bad - j) * (nt - j)) / ((j + 1) * (nc - bad + j + 1)))
    log_total = math.log(sum(weights))
    weights.reverse()
    llrs = []
    for psi in psis:
        tilted = 0.0
        for weight in weights:
            tilted = tilted * psi + weight
        llrs.append((xt - low) * math.log(psi) - math.log(tilted) + log_total)
    return llrs


def _log_tilted_sum(nt: int, nc: int, bad: int, psi: float) -> float:
    """Return ln sum_j h(j) psi^j, summed outwards from the largest term until terms are negligible."""
    low, high = max(0, bad - nc), min(bad, nt)
    b = (bad + nt + 2) * psi + nc - bad
    c = (bad + 1) * (nt + 1) * psi
    mode = int(2 * c / (b + math.sqrt(b * b - 4 * (psi - 1) * c)))
    mode = min(max(mode, low), high)
    total = term = 1.0
    for j in range(mode, high):
        term *= psi * (bad - j) * (nt - j) / ((j + 1) * (nc - bad + j + 1))
        total += term
        if term < _NEGLIGIBLE:
            break
    term = 1.0
    for j in range(mode, low, -1):
        term *= j * (nc - bad + j) / ((bad - j + 1) * (nt - j + 1) * psi)
        total += term
        if term < _NEGLIGIBLE:
            break
    log_h = _log_choose(nt, mode) + _log_choose(nc, bad - mode) - _log_choose(nt + nc, bad)
    return log_h + mode * math.log(psi) + math.log(total)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def margin_odds_ratio(p_ref: float, margin: float) -> float | None:
    """Return the odds ratio that corresponds to a difference of `margin` at `p_ref`, or None if p_ref is 0."""
    if p_ref <= 0:
        return None
    # A rate cannot exceed 1: use at most half of the room above p_ref, which is stricter, never looser.
    p_bad = min(p_ref + margin, (1 + p_ref) / 2)
    if p_bad >= 1:
        return None
    return p_bad / (1 - p_bad) / (p_ref / (1 - p_ref))


def level(n: int, x: int, p_ref: float, deff: float = 1.0) -> float:
    """Return the baseline's rate before the rollout, or a higher one if its x bad of n tasks now surely show one.

    Margins are in points and comparisons odds ratios. If the baseline has become worse, the odds ratio of the earlier
    rate would allow a multiple of the margin. "Surely" is one standard error, as for the baseline's health.
    """
    if not n:
        return p_ref
    now = x / n
    return max(p_ref, now - math.sqrt(deff * now * (1 - now) / n))


def safe_alternatives(psi_margin: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the indices of candidates that keep the margin, in HARM_PSIS + SAFE_PSIS, and their log weights.

    They are the points of SAFE_GRID below the margin's odds ratio. If that is far above them, because hardly anything
    fails in the baseline, a tenth of the weight goes to points of HARM_GRID in between: without them, a candidate half
    a margin worse looks more like the margin than like any of these, however much evidence there is.
    """
    nearer = bisect_right(HARM_PSIS, psi_margin / _APART) - _FIRST_NEARER
    return _safe_alternatives(bisect_left(SAFE_PSIS, psi_margin), max(nearer, 0))


@cache
def _safe_alternatives(usual: int, nearer: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    log_weights = _log_shares([weight for _, weight in SAFE_GRID[:usual]])
    places = tuple(range(len(HARM_PSIS), len(HARM_PSIS) + usual))
    if not nearer:
        return places, log_weights
    kept = tuple(log_weight + math.log(1 - NEARER) for log_weight in log_weights)
    between = tuple(range(_FIRST_NEARER, _FIRST_NEARER + nearer))
    return (*places, *between), (*kept, *[math.log(NEARER / nearer)] * nearer)


@cache
def _harm_log_weights(first: int) -> tuple[float, ...]:
    return _log_shares([weight for _, weight in HARM_GRID[first:]])


def _log_shares(weights: Sequence[float]) -> tuple[float, ...]:
    total = sum(weights)
    return tuple(math.log(weight / total) for weight in weights)


def harm_above(psis: Sequence[float], llr: Sequence[float], psi_null: float, deff: float = 1.0) -> float:
    """Return ln E against "odds ratio <= psi_null" (at least 1); 0 if no point of the grid is above it."""
    if psi_null <= 1:
        return log_mixture(llr[: len(HARM_PSIS)], HARM_LOG_WEIGHTS, deff)
    first = bisect_right(HARM_PSIS, psi_null)
    if first == len(HARM_PSIS):
        return 0.0
    at_null = log_ratio_at(psis, llr, psi_null)
    return log_mixture([at - at_null for at in llr[first : len(HARM_PSIS)]], _harm_log_weights(first), deff)


def log_ratio_at(psis: Sequence[float], llr: Sequence[float], psi: float) -> float:
    """Interpolate the log likelihood ratio at any odds ratio within the grid (it is 0 at 1).

    The interpolation is a cubic through the four nearest points in ln psi. The function is a line minus a sum of
    cumulant generating functions, so it is smooth and concave. With the points of HARM_GRID and SAFE_GRID, the error is
    below 1e-4 of the candidate's bad tasks up to an odds ratio of 3, and below 3e-3 of them up to 6.
    """
    logs, places = _grid(tuple(psis))
    if min(llr, default=0.0) < UNSEEN / 10:
        known = [
            (at, place) for at, place in zip(logs, places, strict=True) if _value(llr, place) > UNSEEN / 10
        ]
        logs, places = (tuple(column) for column in zip(*known, strict=True))
    x = math.log(psi)
    above = bisect_right(logs, x)
    for at in range(max(above - 1, 0), min(above + 1, len(logs))):
        if abs(logs[at] - x) < 1e-9:
            return _value(llr, places[at])
    first = min(max(above - 2, 0), max(len(logs) - 4, 0))
    near = logs[first : first + 4]
    total = 0.0
    for log_psi, place in zip(near, places[first : first + 4], strict=True):
        term = _value(llr, place)
        for other in near:
            if other != log_psi:
                term *= (x - other) / (log_psi - other)
        total += term
    return total


def _value(llr: Sequence[float], place: int) -> float:
    return llr[place] if place >= 0 else 0.0


@lru_cache(maxsize=4096)
def _grid(psis: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return ln psi in order, and their indices in `psis` (-1 for psi = 1), without points too close to interpolate."""
    places = {1.0: -1, **{psi: i for i, psi in enumerate(psis)}}
    points: list[tuple[float, int]] = []
    for psi in sorted(places):
        if not points or math.log(psi) - points[-1][0] > 1e-3:
            points.append((math.log(psi), places[psi]))
    return tuple(at for at, _ in points), tuple(place for _, place in points)


def log_mixture(llrs: Sequence[float], log_weights: Sequence[float], deff: float = 1.0) -> float:
    """Return ln of the weighted sum of likelihood ratios. An average of e-values is an e-value."""
    logs: list[float]
    if deff == 1:
        logs = list(map(add, llrs, log_weights))
    else:
        logs = [log_weight + llr / deff for llr, log_weight in zip(llrs, log_weights, strict=True)]
    top = max(logs)
    return top + math.log(sum([math.exp(log - top) for log in logs]))


def log_e_below(n: int, x: int, bound: float, expected: float, deff: float = 1.0) -> float:
    """Return ln E of one arm against "rate >= bound"; sharpest at `expected`, but at least a tenth of the bound."""
    if not n or not 0 < bound < 1:
        return 0.0
    guess = max(expected, bound / 10)
    if guess >= bound:  # a guess above the bound would count failures as evidence of safety
        guess = bound / 2
    return _log_ratio_of(guess, bound, n, x) / deff


def _log_ratio_of(guess: float, bound: float, n: int, x: int) -> float:
    """Return the ln likelihood ratio of one rate against another for x bad of n tasks."""
    return x * math.log(guess / bound) + (n - x) * math.log((1 - guess) / (1 - bound))


def log_e_within(n: int, x: int, bound: float, expected: float, deff: float = 1.0) -> float:
    """Return ln E of one arm against "rate >= bound", for a candidate at any distance below the bound.

    It is the average over guesses at the odds ratios `WITHIN_PSIS` below the bound and at `expected`, if that is
    below it. One guess alone counts every failure beyond it as evidence against a candidate that keeps the bound.
    """
    if not n or not 0 < bound < 1:
        return 0.0
    odds = bound / (1 - bound)
    guesses = [psi * odds / (1 + psi * odds) for psi in WITHIN_PSIS]
    if 0 < expected < bound:
        guesses.append(expected)
    logs = [_log_ratio_of(guess, bound, n, x) / deff for guess in guesses]
    return log_sum_exp(logs) - math.log(len(guesses))


def log_e_alone(n: int, x: int, bound: float, expected: float, deff: float = 1.0) -> float:
    """Return ln E of one arm against "rate >= bound": `log_e_below`, with a tenth of the weight on `log_e_within`.

    `log_e_below` is sharp where hardly anything fails, but counts a candidate at half the bound as one beyond it.
    """
    below, within = (of(n, x, bound, expected, deff) for of in (log_e_below, log_e_within))
    return log_sum_exp([math.log(1 - NEARER) + below, math.log(NEARER) + within])


def log_e_above(n: int, x: int, bound: float, deff: float = 1.0) -> float:
    """Return ln E of one arm against "rate <= bound", over the odds ratios of HARM_GRID."""
    if not n or not 0 < bound < 1:
        return 0.0
    return log_sum_exp(
        math.log(weight) + (x * math.log(psi) - n * math.log(1 - bound + bound * psi)) / deff
        for psi, weight in HARM_GRID
    )


def mantel_haenszel(strata: Iterable[tuple[int, int, int, int]]) -> tuple[float, float]:
    """Return numerator and denominator of the stratified difference of rates, given (nt, xt, nc, xc) per stratum."""
    numerator = denominator = 0.0
    for nt, xt, nc, xc in strata:
        if nt and nc:
            numerator += (xt * nc - xc * nt) / (nt + nc)
            denominator += nt * nc / (nt + nc)
    return numerator, denominator


def difference_interval(
    difference: float, weight: float, n: int, x: int, deff: float = 1.0, alpha: float = 0.05
) -> tuple[float, float]:
    """Return both one-sided bounds of the difference, at level alpha each and valid at every look. For display.

    `weight` is the Mantel-Haenszel denominator. The variance comes from x bad of n tasks in both arms, with half a bad
    task added so that zero failures do not mean certainty.
    """
    p = (x + 0.5) / (n + 1)
    variance = p * (1 - p)
    v = weight / (variance * deff)
    half = bound_normal(v, alpha, rho_for(N_OPT / variance, alpha)) / v
    return difference - half, difference + half


def rate_interval(n: int, x: int, deff: float = 1.0, alpha: float = 0.05) -> tuple[float, float]:
    """Return the same bounds for one arm's rate, within 0 and 1."""
    low, high = difference_interval(x / n, n, n, x, deff, alpha)
    return max(0.0, low), min(1.0, high)
