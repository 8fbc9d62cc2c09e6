"""What one arm misses beyond the other: how much harm it could hide, and how much it could only seem to be.

d is the difference of the arms' missing shares, d_z what is left of it z standard errors towards 0. The arm with
the larger share has e = d_z / (1 - the other's share) of excess: that part of its tasks is missing though it would
be known in the other arm. A claim of safety takes the worst of them (a candidate's failed, at the cap's cost), a
claim of harm the best (they succeeded, for nothing). Bounds of this kind: C. Manski, Nonparametric bounds on
treatment effects, 1990; D. Lee, Training, wages, and sample selection, 2009 (trimming by the difference of the
shares).
"""

import math
from dataclasses import dataclass

Z_SAFE, Z_HARM = 2.0, 1.0


@dataclass(frozen=True, slots=True)
class Excess:
    """`share` (e, 0 … 1) of one arm's tasks, `tasks` (K) of them; `candidate`: it is the candidate that misses more."""

    share: float = 0.0
    tasks: float = 0.0
    candidate: bool = True


NONE = Excess()


def excess(
    difference: float, weight: float, candidate: tuple[int, int], baseline: tuple[int, int], z: float
) -> Excess:
    """What is certain to be missing beyond the other arm, z standard errors towards nothing.

    `difference` of the missing shares (candidate minus baseline) and its `weight`, the Mantel-Haenszel denominator;
    `candidate` and `baseline`: (missing, tasks).
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
    """What the known tasks must stay below for all tasks to stay below `margin`, in the worst case. May be negative.

    The candidate's excess failed: (margin - e (1 - p)) / (1 - e). The baseline's succeeded: margin - e p.
    """
    e = missing.share
    if not e:
        return margin
    if not missing.candidate:
        return margin - e * p_ref
    return (margin - e * (1 - p_ref)) / (1 - e) if e < 1 else -math.inf


def harm_difference(difference: float, pt: float, pc: float, missing: Excess) -> float:
    """All tasks' difference of rates in the best case: the candidate's excess succeeded, or the baseline's failed."""
    return difference - missing.share * (pt if missing.candidate else 1 - pc)


def harm_odds_ratio(pc: float, missing: Excess) -> float:
    """The odds ratio that equal arms would show if all that is missing beyond the other arm went the best way (≥ 1)."""
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
    """What to add to ln ratio for a claim of safety. spent: the candidate's cost; successes: the baseline's.

    The candidate's excess cost the cap each, without a success; the baseline's succeeded for nothing.
    """
    if not missing.tasks:
        return 0.0
    if not missing.candidate:
        return math.log1p(missing.tasks / successes) if successes > 0 else math.inf
    return math.log1p(missing.tasks * cap / spent) if cap and spent > 0 else math.inf


def log_cost_best(missing: Excess, cap: float | None, spent: float, successes: float) -> float:
    """What to take from ln ratio for a claim of harm. spent: the baseline's cost; successes: the candidate's.

    The candidate's excess succeeded for nothing; the baseline's cost the cap each, without a success.
    """
    if not missing.tasks:
        return 0.0
    if missing.candidate:
        return math.log1p(missing.tasks / successes) if successes > 0 else math.inf
    return math.log1p(missing.tasks * cap / spent) if cap and spent > 0 else math.inf
