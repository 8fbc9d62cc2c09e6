"""A recorded task: what a policy may look at, and what came of it under each model that was asked."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What one model's answer to one task was recorded to be. None means that nobody recorded it.

    success     whether the answer was good; None: ungraded
    cost_nusd   nano-US-dollars; None: no price is known. 0 is a known cost
    quality     0 … 1, where a score was recorded
    confidence  0 … 1, what a policy's second stage may look at
    latency_ms  how long the answer took
    error       the kind of failure in the policy's words (`timeout`, `refusal`, …); None: it answered
    """

    success: bool | None
    cost_nusd: int | None
    quality: float | None = None
    confidence: float | None = None
    latency_ms: float | None = None
    error: str | None = None


class Task(NamedTuple):
    """One recorded task. `answers` is by catalogue model; `request` holds the `request.*` inputs."""

    request: Mapping[str, Any]
    answers: Mapping[str, Answer]
