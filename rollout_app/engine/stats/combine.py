"""How evidence is put together: over the parts of a guardrail, over guardrails, over stages."""

import math
from collections.abc import Iterable

ALPHA = 0.05  # of the whole rollout
LOG_ROLL_BACK = -math.log(ALPHA)  # E >= 20
LOG_SAFE = -math.log(ALPHA)
LOG_AMBER = math.log(5)
# From here on no stage is skipped: a small share tells more by each of its tasks, and fewer of them go wrong.
LOG_SUSPICION = math.log(0.1)


def log_sum_exp(values: Iterable[float]) -> float:
    """ln of the sum of exponentials; -inf of nothing."""
    values = values if isinstance(values, list) else list(values)
    top = max(values, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(sum([math.exp(value - top) for value in values]))


def weighted(parts: Iterable[tuple[float, float]]) -> float:
    """ln of the weighted sum of e-values, from (weight, ln E): with weights that add up to 1 it is an e-value.

    -inf of nothing. What is left out of the sum only lowers it, so no rule about what counts can raise the chance of a
    false alarm.
    """
    return log_sum_exp([math.log(weight) + log_e for weight, log_e in parts if weight > 0])


def stage_margin(margin: float, cap: float, next_share: float) -> float:
    """What must be excluded before `next_share` (0 … 1) of the traffic, so that all bear `margin` at most."""
    return min(cap, margin / next_share) if next_share > 0 else cap


def missing_breach(decisions: int, outcomes: int) -> bool:
    """Twenty decisions older than the outcome lag and not one outcome: the candidate is not heard of."""
    return decisions >= 20 and outcomes == 0
