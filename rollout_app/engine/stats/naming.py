"""Identify the slices that are hurt, by the closed e-BH procedure, which controls the false discovery rate at any time.

A set of slices is named if every set of slices that intersects it has enough mean evidence. The procedure names at
least the slices that e-BH names, and does not assume that slices are independent. Source: Z. Xu, A. Solari, L. Fischer,
R. de Heide, A. Ramdas, J. Goeman: Bringing closure to FDR control, arXiv 2504.11759, theorem 2 with averages as local
e-values; e-BH: R. Wang, A. Ramdas, arXiv 2009.02824.
"""

from collections.abc import Mapping
from math import exp

FDR = 0.05
_LARGEST = 600.0  # cap on ln E: more evidence would not change the result, and the sums stay finite


def hurt(log_es: Mapping[str, float], fdr: float = FDR) -> tuple[str, ...]:
    """Return the names of the slices that are hurt, the strongest evidence first, given ln E by name."""
    ranked = sorted(log_es, key=lambda name: (-log_es[name], name))
    values = [exp(min(log_es[name], _LARGEST)) for name in ranked]
    for size in range(len(ranked), 0, -1):
        if _holds(values, size, fdr):
            return tuple(ranked[:size])
    return ()


def _holds(values: list[float], size: int, fdr: float) -> bool:
    """Return whether the `size` largest can be named: any set with s of them must have a mean of s / (fdr size).

    For each s, the set with the lowest mean consists of the s smallest of the named ones, and of others, smallest
    first, as long as they lower the mean.
    """
    named, others = values[:size][::-1], values[size:][::-1]
    inside = 0.0
    for s, value in enumerate(named, 1):
        inside += value
        needed = s / (fdr * size)
        total, count = inside, s
        if total < needed * count:
            return False
        for other in others:
            total, count = total + other, count + 1
            if total < needed * count:
                return False
    return True
