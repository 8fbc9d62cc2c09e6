"""How evidence is put together: over restarts, over guardrails, over stages."""

import math
from collections.abc import Iterable, Sequence

ALPHA = 0.05  # of the whole rollout
LOG_ROLL_BACK = -math.log(ALPHA)  # E >= 20
LOG_SAFE = -math.log(ALPHA)
LOG_AMBER = math.log(5)
RESTART_WEIGHTS = (0.7, 0.1, 0.1, 0.1)


def log_sum_exp(values: Iterable[float]) -> float:
    """ln of the sum of exponentials; -inf of nothing."""
    values = list(values)
    top = max(values, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(sum([math.exp(value - top) for value in values]))


def restart(log_es: Sequence[float], weights: Sequence[float] = RESTART_WEIGHTS) -> float:
    """Evidence since the start and since each later stage; 0 for one that has not begun.

    Without restarts, a candidate that was good for three stages has saved up evidence in its favour, and a
    harm that sets in late must first use it up.
    """
    return log_sum_exp([math.log(weight) + log_e for log_e, weight in zip(log_es, weights, strict=True)])


def rollout_evidence(guardrails: Iterable[tuple[float, float, float | None, float]]) -> float:
    """ln of the weighted sum over (ln E, weight, estimate, margin): an average of e-values is one.

    A guardrail whose estimate is below its margin, or that has none, counts 0: a harm that is certain but
    smaller than what the owner accepts is no reason to roll back.
    """
    return log_sum_exp(
        math.log(weight) + log_e
        for log_e, weight, estimate, margin in guardrails
        if weight > 0 and estimate is not None and estimate >= margin
    )


def stage_margin(margin: float, cap: float, next_share: float) -> float:
    """What must be excluded before `next_share` (0 … 1) of the traffic, so that all bear `margin` at most."""
    return min(cap, margin / next_share) if next_share > 0 else cap


def missing_breach(decisions: int, outcomes: int) -> bool:
    """Twenty decisions older than the outcome lag and not one outcome: the candidate is not heard of."""
    return decisions >= 20 and outcomes == 0
