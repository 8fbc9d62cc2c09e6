"""A recorded task: the inputs of a policy, and the outcome under each model that was asked."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """One model's recorded answer to one task. None: not recorded.

    success     whether the answer was good; None: ungraded
    cost_nusd   nano-US-dollars; None: no known price. 0 is a known cost
    quality     0 … 1, if a score was recorded
    confidence  0 … 1, an input of a policy's second stage
    latency_ms  how long the answer took
    error       the kind of failure as policies name it (`timeout`, `refusal`, …); None: it answered
    """

    success: bool | None
    cost_nusd: int | None
    quality: float | None = None
    confidence: float | None = None
    latency_ms: float | None = None
    error: str | None = None


class Task(NamedTuple):
    """One recorded task. `answers` is keyed by catalogue model; `request` holds the `request.*` inputs."""

    request: Mapping[str, Any]
    answers: Mapping[str, Answer]
