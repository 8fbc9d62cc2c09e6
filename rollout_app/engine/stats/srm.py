"""Sample-ratio mismatch: does the candidate's share of the tasks match the plan?

A mismatch means that tasks of one arm are lost or counted twice, and then no comparison of the arms can be trusted.
"""

import math
from collections.abc import Iterable

KAPPA = 100
LOG_MISMATCH = math.log(1000)


def log_e_srm(segments: Iterable[tuple[float, int, int]], unit_spread: float = 0.0) -> float:
    """Return ln E against the planned share, given segments of constant share: (share 0 … 1, candidate n, baseline n).

    The test is a beta mixture with `KAPPA` pseudo-tasks around the plan. `unit_spread` is the sum of squared traffic
    shares of the sticky units: with few or unequal tenants, the share of *tasks* varies even if the share of tenants is
    right. It is measured over all segments, and so is the resulting dispersion, because intermittent units can send all
    their tasks in one segment.
    """
    known = [(share, nt, nc) for share, nt, nc in segments if 0 < share < 1]
    dispersion = 1 + unit_spread * sum(nt + nc for _, nt, nc in known)
    return sum(_log_beta_binomial(share, nt, nc) for share, nt, nc in known) / dispersion


def _log_beta_binomial(share: float, nt: int, nc: int) -> float:
    a, b = KAPPA * share, KAPPA * (1 - share)
    mixture = _log_beta(a + nt, b + nc) - _log_beta(a, b)
    return mixture - nt * math.log(share) - nc * math.log(1 - share)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
