"""Combine evidence over the parts of a guardrail, over guardrails and over stages."""

import math
from collections.abc import Iterable

ALPHA = 0.05  # of the whole rollout
LOG_ROLL_BACK = -math.log(ALPHA)  # E >= 20
LOG_SAFE = -math.log(ALPHA)
LOG_AMBER = math.log(5)
# From this evidence of harm on, no stage is skipped: at a small share each candidate task is more informative, and
# fewer tasks can go wrong.
LOG_SUSPICION = math.log(0.1)


def log_sum_exp(values: Iterable[float]) -> float:
    """Return ln of the sum of exponentials; -inf for no values."""
    values = values if isinstance(values, list) else list(values)
    top = max(values, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(sum([math.exp(value - top) for value in values]))


def weighted(parts: Iterable[tuple[float, float]]) -> float:
    """Return ln of the weighted sum of e-values, given as (weight, ln E); -inf for no parts.

    If the weights add up to at most 1, the sum is an e-value. Leaving parts out only lowers it, so no rule about which
    parts count can raise the probability of a false alarm.
    """
    return log_sum_exp([math.log(weight) + log_e for weight, log_e in parts if weight > 0])


def stage_margin(margin: float, cap: float, next_share: float) -> float:
    """Return the harm to exclude before `next_share` (0 … 1), so that all traffic bears at most `margin`.

    `cap` limits what a small share may bear; it never asks for less harm than the margin allows at full traffic.
    """
    return max(margin, min(cap, margin / next_share)) if next_share > 0 else max(margin, cap)


def missing_breach(decisions: int, outcomes: int) -> bool:
    """Return whether at least 20 decisions are older than the outcome lag without a single outcome."""
    return decisions >= 20 and outcomes == 0
