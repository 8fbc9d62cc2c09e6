"""Bounds for missing data: how much harm it could hide, and how much apparent harm it could explain.

d is the difference of the arms' missing shares, and d_z is d moved z standard errors towards 0. The arm with the larger
share has an excess of e = d_z / (1 - the other's share): this fraction of its tasks is missing although it would be
known in the other arm. A claim of safety assumes the worst about them (the candidate's failed, at the cap's cost), a
claim of harm the best (they succeeded, at no cost). Bounds of this kind: C. Manski, Nonparametric bounds on treatment
effects, 1990; D. Lee, Training, wages, and sample selection, 2009 (trimming by the difference of the shares).
"""

import math

from rollout_app.engine.values import value

Z_SAFE, Z_HARM = 2.0, 1.0


@value(frozen=True, slots=True)
class Excess:
    """The excess of missing data in one arm.

    share      e (0 … 1), the fraction of the arm's tasks
    tasks      K, the number of tasks
    candidate  whether the candidate is that arm; else the baseline
    """

    share: float = 0.0
    tasks: float = 0.0
    candidate: bool = True


NONE = Excess()


def excess(
    difference: float, weight: float, candidate: tuple[int, int], baseline: tuple[int, int], z: float
) -> Excess:
    """Return the excess of missing data that remains z standard errors towards 0.

    difference           of the missing shares, candidate minus baseline
    weight               of the difference: the Mantel-Haenszel denominator
    candidate, baseline  (missing tasks, all tasks)
    """
    (mt, nt), (mc, nc) = candidate, baseline
    if not weight or not nt or not nc or not mt + mc:
        return NONE
    p = (mt + mc) / (nt + nc)
    kept = abs(difference) - z * math.sqrt(max(p * (1 - p), 0.0) / weight)
    if kept <= 0:
        return NONE
    other, own = (mc / nc, nt) if difference > 0 else (mt / nt, nc)
    if other >= 1:
        return NONE
    return Excess(min(kept / (1 - other), 1.0), kept * own, difference > 0)


def safe_margin(margin: float, p_ref: float, missing: Excess) -> float:
    """Return the margin for the known tasks that keeps all tasks within `margin` in the worst case. It may be negative.

    If the candidate's excess failed: (margin - e (1 - p)) / (1 - e). If the baseline's succeeded: margin - e p.
    """
    e = missing.share
    if not e:
        return margin
    if not missing.candidate:
        return margin - e * p_ref
    return (margin - e * (1 - p_ref)) / (1 - e) if e < 1 else -math.inf


def harm_difference(difference: float, pt: float, pc: float, missing: Excess) -> float:
    """Return the best-case difference of all tasks: the candidate's excess succeeded or the baseline's failed."""
    return difference - missing.share * (pt if missing.candidate else 1 - pc)


def harm_odds_ratio(pc: float, missing: Excess) -> float:
    """Return the odds ratio (≥ 1) that equal arms would show in the best case for the excess."""
    e = missing.share
    if not e or not 0 < pc < 1:
        return 1.0
    if e >= 1:
        return math.inf
    shown = pc / (1 - e) if missing.candidate else pc * (1 - e) + e
    if shown >= 1:
        return math.inf
    return shown / (1 - shown) / (pc / (1 - pc))


def log_cost_worst(missing: Excess, cap: float | None, spent: float, successes: float) -> float:
    """Return the amount to add to ln ratio for a claim of safety.

    spent      the candidate's cost
    successes  the baseline's

    It assumes that the candidate's excess cost the cap each without a success, or the baseline's succeeded for free.
    """
    if not missing.tasks:
        return 0.0
    if not missing.candidate:
        return math.log1p(missing.tasks / successes) if successes > 0 else math.inf
    return math.log1p(missing.tasks * cap / spent) if cap and spent > 0 else math.inf


def log_cost_best(missing: Excess, cap: float | None, spent: float, successes: float) -> float:
    """Return the amount to subtract from ln ratio for a claim of harm.

    spent      the baseline's cost
    successes  the candidate's

    It assumes that the candidate's excess succeeded for free, or the baseline's cost the cap each without a success.
    """
    if not missing.tasks:
        return 0.0
    if missing.candidate:
        return math.log1p(missing.tasks / successes) if successes > 0 else math.inf
    return math.log1p(missing.tasks * cap / spent) if cap and spent > 0 else math.inf
