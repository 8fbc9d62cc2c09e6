"""Which slices are hurt: the closed e-BH procedure, with the false discovery rate held at every moment.

A set of slices is named when every subset of all slices that meets it holds enough mean evidence. It names at least
what e-BH names, and needs no independence between slices. Source: Z. Xu, A. Solari, L. Fischer, R. de Heide, A. Ramdas,
J. Goeman: Bringing closure to FDR control, arXiv 2504.11759, theorem 2 with averages as local e-values; e-BH: R. Wang,
A. Ramdas, arXiv 2009.02824.
"""

from collections.abc import Mapping
from math import exp

FDR = 0.05
_LARGEST = 600.0  # ln: more evidence changes no answer, and the sums stay finite


def hurt(log_es: Mapping[str, float], fdr: float = FDR) -> tuple[str, ...]:
    """The names of the slices that are hurt, the strongest evidence first, from ln E of each."""
    ranked = sorted(log_es, key=lambda name: (-log_es[name], name))
    values = [exp(min(log_es[name], _LARGEST)) for name in ranked]
    for size in range(len(ranked), 0, -1):
        if _holds(values, size, fdr):
            return tuple(ranked[:size])
    return ()


def _holds(values: list[float], size: int, fdr: float) -> bool:
    """Whether the `size` largest may be named: the mean over any set with s of them is at least s / (fdr size).

    For each s the hardest set takes the s smallest of those named, and of the others, smallest first, as long as they
    lower the mean.
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
