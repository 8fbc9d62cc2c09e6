"""What it costs that tasks of one sticky unit resemble each other."""

from collections.abc import Sequence

_CHANCE_Z = 3.09  # exceeded once in a thousand times by chance


def design_effect(groups: Sequence[tuple[int, int]]) -> float:
    """How many correlated tasks tell as much as one independent one: at least 1.

    `groups` are (tasks, bad ones) by hash of the unit; one unit lies in one group. The groups' rates scatter
    by sampling alone if tasks are independent; what they scatter more is the design effect.
    """
    used = [(n, x) for n, x in groups if n > 0]
    n_all, x_all = sum(n for n, _ in used), sum(x for _, x in used)
    if len(used) < 2 or not 0 < x_all < n_all:
        return 1.0
    p = x_all / n_all
    scatter = sum((x - n * p) ** 2 / n for n, x in used)
    return max(1.0, scatter / ((len(used) - 1) * p * (1 - p)))


def unit_spread(tasks: Sequence[int]) -> float:
    """The sum of squared traffic shares of the units (1 / how many equal ones it amounts to), from group
    sizes.

    0 as long as the groups differ no more than single tasks would.
    """
    count, total = len(tasks), sum(tasks)
    if count < 2 or not total:
        return 0.0
    mean = total / count
    dispersion = sum((n - mean) ** 2 for n in tasks) / ((count - 1) * mean)
    return (dispersion - 1) / total if dispersion > _chance(count - 1) else 0.0


def _chance(degrees: int) -> float:
    """What the index of dispersion of independent tasks (chi² / degrees) exceeds once in a thousand times.

    E. Wilson, M. Hilferty: The distribution of chi-square, 1931.
    """
    a = 2 / (9 * degrees)
    return float((1 - a + _CHANCE_Z * a**0.5) ** 3)
