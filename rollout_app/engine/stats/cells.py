"""Predict the failure rates of hash cells from their past, and measure the variation that remains.

All tasks of a sticky unit stay in one arm. If units differ, the arms differ by chance, and a test that treats tasks as
independent finds harm where there is none. Persistent rates can be predicted from the past, cell by cell, and then
compared among similar cells; the remaining variation is a design effect. Random-effects moments: R. DerSimonian, N.
Laird, Meta-analysis in clinical trials, 1986; shrinkage: C. Morris, Parametric empirical Bayes inference, 1983; a
design effect from the spread of clusters: J. Rao, A. Scott, 1992.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CELLS = 1024
Halves = tuple[int, int, int, int]  # tasks and failures in the first and in the second half of the past

CLASS_WIDTH = 0.3  # width of a class of similar cells, in ln odds ratio
_CLEAR = 2.5  # number of standard errors from which rates count as persistent
_LONE_TASKS, _LONE_Z = 20, 2.0
_LEAST = 20  # no predicted rate is below the mean divided by this
_FURTHEST_CLASS = 12


@dataclass(frozen=True, slots=True)
class Prediction:
    """The expected failure rate of each cell; `mean` for a cell without a past."""

    mean: float
    rates: Mapping[int, float] = field(default_factory=dict)
    persistent: float = 0.0  # T: persistent variance of the rates, in units of p (1 - p)

    def rate(self, cell: int) -> float:
        return self.rates.get(cell, self.mean)

    def kind(self, cell: int) -> int:
        """Return the cell's class of similar cells; 0 is the class of the mean."""
        return _kind(self.rates.get(cell, self.mean), self.mean)


def predict(cells: Mapping[int, Halves]) -> Prediction:
    """Predict each cell's failure rate from its past, shrunk towards the mean if rates do not persist."""
    n1, x1, n2, x2 = (sum(counts[i] for counts in cells.values()) for i in range(4))
    n, x = n1 + n2, x1 + x2
    if not n or not 0 < x < n:
        return Prediction(x / n if n else 0.0)
    p = x / n
    persistent = _persistent_variance(cells, x1 / n1 if n1 else p, x2 / n2 if n2 else p) / (p * (1 - p))
    spread = sum((b + d - (a + c) * p) ** 2 / (a + c) for a, b, c, d in cells.values() if a + c)
    used = sum(1 for a, _, c, _ in cells.values() if a + c)
    explained = persistent * (n - sum((a + c) ** 2 for a, _, c, _ in cells.values()) / n)
    phi = max(1.0, (spread / (p * (1 - p)) - explained) / (used - 1)) if used > 1 else 1.0
    rates = {}
    for cell, counts in cells.items():
        if shrunk := _shrunk(counts, p, persistent, phi):
            rates[cell] = shrunk
    return Prediction(p, rates, persistent)


def _persistent_variance(cells: Mapping[int, Halves], p1: float, p2: float) -> float:
    """Return the covariance of the cells' rates in the two halves, or 0 unless it is clear.

    Transient differences do not contribute to it.
    """
    terms, weights = [], 0.0
    for n1, x1, n2, x2 in cells.values():
        if n1 and n2:
            weight = n1 * n2 / (n1 + n2)
            terms.append(weight * (x1 / n1 - p1) * (x2 / n2 - p2))
            weights += weight
    total = sum(terms)
    clear = total > _CLEAR * math.sqrt(sum(term * term for term in terms))
    return total / weights if clear and weights else 0.0


def _shrunk(counts: Halves, p: float, persistent: float, phi: float) -> float | None:
    """Return the predicted rate, or None if it is the mean."""
    n1, x1, n2, x2 = counts
    n = n1 + n2
    if not n:
        return None
    rate = (x1 + x2) / n
    trust = persistent / (persistent + phi / n)
    if min(n1, n2) >= _LONE_TASKS:
        z1, z2 = ((x / m - p) / math.sqrt(p * (1 - p) / m) for m, x in ((n1, x1), (n2, x2)))
        if (
            min(abs(z1), abs(z2)) > _LONE_Z and z1 * z2 > 0
        ):  # one cell that stands out, though the others do not
            z = (rate - p) / math.sqrt(p * (1 - p) / n)
            trust = max(trust, 1 - 1 / (z * z))
    if not trust:
        return None
    return min(max(p + trust * (rate - p), p / _LEAST), (1 + p) / 2)


def _kind(rate: float, mean: float) -> int:
    if rate == mean or not (0 < rate < 1 and 0 < mean < 1):
        return 0
    log_odds = math.log(rate / (1 - rate)) - math.log(mean / (1 - mean))
    return max(-_FURTHEST_CLASS, min(_FURTHEST_CLASS, round(log_odds / CLASS_WIDTH)))


def residual_design_effect(cells: Iterable[tuple[float, float, float]]) -> float:
    """Return the design effect (at least 1), given (failures, expected, variance) per cell.

    It is the scatter of the cells relative to that of independent tasks.
    """
    used = [(x - expected) ** 2 / variance for x, expected, variance in cells if variance > 0]
    return max(1.0, sum(used) / (len(used) - 1)) if len(used) > 1 else 1.0


def compared_design_effect(
    residual: float, candidate: Sequence[tuple[float, float]], baseline: Sequence[tuple[float, float]]
) -> float:
    """Return the design effect of the difference between two arms.

    residual             the baseline's design effect
    candidate, baseline  per cell: (the arm's tasks, all tasks)

    Correlated tasks add variance in proportion to the number of tasks per unit: an arm with small units has less
    variance than the baseline, one with a large unit has more. A cell's tasks in both arms stand for the size of its
    units, as units can be finer than cells. The arms' parts are weighted by their variances (L. Kish, Survey sampling,
    1965: 1 + (m - 1) rho).
    """
    nt, nc = sum(n for n, _ in candidate), sum(n for n, _ in baseline)
    size_t, size_c = (sum(n * size for n, size in arm) for arm in (candidate, baseline))
    if not nt or not nc or not size_c or residual <= 1:
        return residual
    ours = 1 + (residual - 1) * (size_t / nt) / (size_c / nc)
    return (ours / nt + residual / nc) / (1 / nt + 1 / nc)
