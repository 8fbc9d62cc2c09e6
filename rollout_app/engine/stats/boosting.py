"""Boosting an e-process of a rate: what a window's factor has beyond need is given to its other outcomes.

A factor above what is still needed to reach the threshold is wasted. It is capped there, and all outcomes are rescaled
so that the null expectation stays 1; the outcomes of one window are hypergeometric under the null, so the rescaling is
exact. Source: L. Fischer, A. Ramdas: Improving Wald's (approximate) sequential probability ratio test by avoiding
overshoot, arXiv 2410.16076, section 3 (truncated and boosted factors).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import mul

from rollout_app.engine.stats.rates import stratum_llrs

MOST_OUTCOMES = 160  # of one window; with more, a boost costs more time than it saves tasks
_NEGLIGIBLE = -40.0  # ln of a weight that no outcome of one window brings back


def stays_below(
    log_cap: float, counts: tuple[int, int, int, int], log_psis: Sequence[float], after: Sequence[float]
) -> bool:
    """Whether not even the worst outcome of the window brings the e-process to its cap: then nothing is boosted.

    `after`: ln weight plus log likelihood ratio of each odds ratio with the window's own outcome. With k more bad
    tasks in the candidate each would be k ln psi higher.
    """
    nt, xt, _, xc = counts
    more = min(xt + xc, nt) - xt
    logs = [value + more * log_psi for value, log_psi in zip(after, log_psis, strict=False)]
    top = max(logs)
    return top < log_cap and top + math.log(sum([math.exp(log - top) for log in logs])) < log_cap


def log_boosted(
    nt: int, xt: int, nc: int, xc: int, psis: Sequence[float], log_weights: Sequence[float], log_room: float
) -> float:
    """ln of the boosted factor of one window, which is its plain factor where boosting changes nothing.

    nt, xt, nc, xc: tasks and bad ones of candidate and baseline. log_weights: of each odds ratio in `psis` (all
    above 1) before this window, adding up to 1. log_room: ln of what the e-process may still be multiplied by.
    """
    bad = xt + xc
    if not nt or not nc or not bad or bad == nt + nc:
        return 0.0
    low, high = max(0, bad - nc), min(bad, nt)
    if log_room <= 0 or high - low >= MOST_OUTCOMES:
        return _log_plain(nt, xt, nc, xc, psis, log_weights)
    null, factors = _outcomes(nt, nc, bad, psis, log_weights)
    room = math.exp(log_room)
    return math.log(_boosted(null, factors, room, xt - low))


def _log_plain(
    nt: int, xt: int, nc: int, xc: int, psis: Sequence[float], log_weights: Sequence[float]
) -> float:
    llrs = stratum_llrs(nt, xt, nc, xc, psis)
    terms = [weight + llr for weight, llr in zip(log_weights, llrs, strict=True)]
    top = max(terms)
    return top + math.log(sum([math.exp(term - top) for term in terms]))


def _outcomes(
    nt: int, nc: int, bad: int, psis: Sequence[float], log_weights: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The null probability of each number of bad candidate tasks, from the fewest on, and the plain factor there."""
    low, high = max(0, bad - nc), min(bad, nt)
    null = _hypergeometric(nt, nc, bad, low, high)
    factors = [0.0] * len(null)
    for psi, log_weight in zip(psis, log_weights, strict=True):
        if log_weight < _NEGLIGIBLE:
            continue
        powers = _powers(psi)[: len(null)]
        scale = math.exp(log_weight) / sum(map(mul, null, powers))
        factors = [total + scale * power for total, power in zip(factors, powers, strict=False)]
    return null, factors


@lru_cache(maxsize=64)
def _powers(psi: float) -> list[float]:
    """psi ** 0 and on. 25 ** 160 is 1e224: finite, and the smallest probabilities beside it are, too."""
    return [psi**j for j in range(MOST_OUTCOMES + 1)]


def _hypergeometric(nt: int, nc: int, bad: int, low: int, high: int) -> list[float]:
    """P(j bad tasks in the candidate), j = low … high, by ratios from the most likely one."""
    mode = min(max((bad + 1) * (nt + 1) // (nt + nc + 2), low), high)
    above, term = [], 1.0
    for j in range(mode, high):
        term *= (bad - j) * (nt - j) / ((j + 1) * (nc - bad + j + 1))
        above.append(term)
    below, term = [], 1.0
    for j in range(mode, low, -1):
        term *= j * (nc - bad + j) / ((bad - j + 1) * (nt - j + 1))
        below.append(term)
    weights = [*reversed(below), 1.0, *above]
    total = sum(weights)
    return [weight / total for weight in weights]


def _boosted(null: Sequence[float], factors: Sequence[float], room: float, seen: int) -> float:
    """min(b f, room) at the outcome seen, with the b that makes its null expectation 1.

    Factors grow with the number of bad tasks, so what is capped is a tail: it is lengthened until the factor below it
    stays under the cap. The plain factors have expectation 1, so b is never below 1.
    """
    kept = len(null)  # the outcomes below are scaled, those from here on are capped
    capped, scaled, boost = 0.0, 1.0, 1.0
    while kept > 0 and boost * factors[kept - 1] > room:
        kept -= 1
        capped += null[kept]
        scaled -= null[kept] * factors[kept]
        if scaled <= 1e-12:  # the rest rounds away
            break
        boost = max(1.0, (1 - room * capped) / scaled)
    return min(boost * factors[seen], room)
