"""Design effects: the loss of information because tasks of one sticky unit resemble each other."""

from collections.abc import Sequence

_CHANCE_Z = 3.09  # standard normal quantile that chance exceeds once in a thousand times


def design_effect(groups: Sequence[tuple[int, int]]) -> float:
    """Return how many correlated tasks carry as much information as one independent task (at least 1).

    `groups` are (tasks, bad tasks) by hash of the unit; all tasks of a unit are in one group. The design effect is the
    scatter of the groups' rates relative to that of independent tasks.
    """
    used = [(n, x) for n, x in groups if n > 0]
    n_all, x_all = sum(n for n, _ in used), sum(x for _, x in used)
    if len(used) < 2 or not 0 < x_all < n_all:
        return 1.0
    p = x_all / n_all
    scatter = sum((x - n * p) ** 2 / n for n, x in used)
    return max(1.0, scatter / ((len(used) - 1) * p * (1 - p)))


def unit_spread(tasks: Sequence[int]) -> float:
    """Return the sum of squared traffic shares of the units, 1 / (effective number of units), from group sizes.

    It is 0 if the groups differ no more than with independent tasks.
    """
    count, total = len(tasks), sum(tasks)
    if count < 2 or not total:
        return 0.0
    mean = total / count
    dispersion = sum((n - mean) ** 2 for n in tasks) / ((count - 1) * mean)
    return (dispersion - 1) / total if dispersion > _chance(count - 1) else 0.0


def _chance(degrees: int) -> float:
    """Return the bound that the index of dispersion of independent tasks exceeds once in a thousand times.

    The index is chi² / degrees.

    E. Wilson, M. Hilferty: The distribution of chi-square, 1931.
    """
    a = 2 / (9 * degrees)
    return float((1 - a + _CHANCE_Z * a**0.5) ** 3)
