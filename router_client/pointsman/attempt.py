"""The argument and the result of `decision.next()`."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple

from pointsman.costs import Usage

__all__ = ["ANSWERED_BADLY", "UNREACHABLE", "Action", "Attempt", "Next", "error_kind"]

Action = Literal["accept", "retry", "fallback", "escalate", "stop"]

# The model could not be reached: another attempt or another model may help.
UNREACHABLE = ("timeout", "rate_limited", "server_error", "connection", "unknown_model", "error")
# The model answered, but the answer is not usable: a stronger model may help.
ANSWERED_BADLY = ("refusal", "invalid_output", "empty_output", "tool_failure")


class Attempt:
    """How one call of a model ended, as the router saw it.

    ok            whether the model answered
    error         when not ok (or answered badly): one of `UNREACHABLE` or `ANSWERED_BADLY`; any other string
                  counts as `error`
    confidence    0 … 1, if a scorer gave one
    valid         False if the answer failed the caller's own check (the same as error `invalid_output`)
    cost_nusd     its cost in whole nano-US-dollars; or
    cost_usd      the same in dollars; or
    usage         its tokens, priced by the snapshot. With none of the three, the task's cost is unknown
    latency_ms    how long it took; by default the time since the last step
    output_tokens length of the answer, if known
    """

    __slots__ = (
        "confidence", "cost_nusd", "cost_usd", "error", "latency_ms", "ok", "output_tokens", "usage", "valid",
    )  # fmt: skip

    def __init__(
        self,
        *,
        ok: bool = True,
        error: str | None = None,
        confidence: float | None = None,
        valid: bool | None = None,
        cost_nusd: int | None = None,
        cost_usd: float | None = None,
        usage: Usage | None = None,
        latency_ms: float | None = None,
        output_tokens: int | None = None,
    ) -> None:
        self.ok = ok
        self.error = error
        self.confidence = confidence
        self.valid = valid
        self.cost_nusd = cost_nusd
        self.cost_usd = cost_usd
        self.usage = usage
        self.latency_ms = latency_ms
        self.output_tokens = output_tokens

    def as_inputs(self) -> dict[str, Any]:
        """The `response.*` inputs of a condition. NaN is absent: a scorer that failed was not certain."""
        return {
            "confidence": _known(self.confidence),
            "latency_ms": _known(self.latency_ms),
            "output_tokens": self.output_tokens,
        }


class Next(NamedTuple):
    """What to do next. `accept` and `stop` end the task; the others name the model to call after `delay_ms`.

    action      accept (use this answer), retry, fallback, escalate, or stop (there is no answer)
    alias       the policy's own name of the model, as outcomes report it
    model       the catalogue's name of the model, to call
    params      the policy's parameters for it
    code        the reason as a stable code, for metrics
    reason      the reason as a sentence
    delay_ms    how long to wait before the call
    timeout_ms  time limit of the call; None if the policy sets no limit
    """

    action: Action
    alias: str
    model: str
    params: Mapping[str, Any]
    code: str
    reason: str
    delay_ms: int = 0
    timeout_ms: int | None = None

    @property
    def done(self) -> bool:
        """Whether the task ends here."""
        return self.action in ("accept", "stop")


def error_kind(attempt: Attempt) -> str | None:
    """Return the kind of failure as the policy names it, or None for an answer."""
    if attempt.error is not None:
        return attempt.error if attempt.error in UNREACHABLE or attempt.error in ANSWERED_BADLY else "error"
    if not attempt.ok:
        return "error"
    # A check with numpy returns its own False.
    return None if attempt.valid is None or attempt.valid else "invalid_output"


def _known(figure: float | None) -> float | None:
    return None if isinstance(figure, Real) and figure != figure else figure
