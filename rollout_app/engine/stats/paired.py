"""Tests for mirrored tasks: both arms ran the same task, so each task is its own stratum.

b is the number of tasks in which only the baseline succeeded, c that in which only the candidate did. The tests are
one-sided, valid at every look and exact at any n. Sources: McNemar 1947 (the discordant pairs carry the difference);
Waudby-Smith & Ramdas 2024, arXiv 2010.09686 (betting on a bounded mean).
"""

import math

from rollout_app.engine.stats.combine import log_sum_exp
from rollout_app.engine.stats.rates import HARM_GRID

_BETS = (0.05, 0.1, 0.2, 0.4, 0.7)  # fractions of the largest stake that cannot lose everything


def log_e_worse(only_baseline: int, only_candidate: int) -> float:
    """Return ln E against "the candidate wins at least half of the discordant tasks"."""
    b, c = only_baseline, only_candidate
    return log_sum_exp(
        math.log(weight) + b * math.log(psi) - (b + c) * math.log((1 + psi) / 2) for psi, weight in HARM_GRID
    )


def log_e_not_worse(n: int, only_baseline: int, only_candidate: int, margin: float) -> float:
    """Return ln E against "the candidate's success is lower by `margin` or more" (a mean of -1, 0, 1 per task)."""
    if not n or not 0 < margin < 1:
        return 0.0
    ties = n - only_baseline - only_candidate
    values = []
    for share in _BETS:
        bet = share / (1 - margin)
        values.append(
            only_baseline * math.log1p(-bet * (1 - margin))
            + only_candidate * math.log1p(bet * (1 + margin))
            + ties * math.log1p(bet * margin)
        )
    return log_sum_exp(values) - math.log(len(_BETS))


def exact_p(only_baseline: int, only_candidate: int) -> float:
    """Return the two-sided p-value of "each arm wins half of the discordant tasks" (McNemar's exact test).

    It is valid for a single look, as in a report. For repeated looks, use the e-values above.
    """
    n, k = only_baseline + only_candidate, min(only_baseline, only_candidate)
    if not n:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    return min(1.0, 2 * math.exp(log_sum_exp(logs)))


def difference_interval(n: int, only_baseline: int, only_candidate: int) -> tuple[float, float] | None:
    """Return the 95 % interval of the candidate's success minus the baseline's, or None without tasks.

    Bonett & Price 2012, Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data. It keeps its level even with few tasks.
    """
    if not n:
        return None
    won, lost = (only_candidate + 1) / (n + 2), (only_baseline + 1) / (n + 2)
    error = _Z95 * math.sqrt((won + lost - (won - lost) ** 2) / (n + 2))
    return max(-1.0, won - lost - error), min(1.0, won - lost + error)


_Z95 = 1.959963984540054
