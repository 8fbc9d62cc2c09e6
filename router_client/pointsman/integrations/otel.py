"""Add decisions to OpenTelemetry spans, and turn evaluations of spans into feedback. Needs the extra `otel`.

    with tracer.start_as_current_span("chat") as span:
        decision = router.decide(…)
        annotate(span, decision)

    provider.add_span_processor(FeedbackFromSpans(router))

The names of the GenAI conventions are from the repository semantic-conventions-genai, v0.1.0: `gen_ai.request.model`,
and the event `gen_ai.evaluation.result` with `gen_ai.evaluation.name`, `.score.value` and `.score.label`. Pointsman's
own names begin with `pointsman.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace import Span
except ImportError as error:
    raise ImportError("OpenTelemetry needs its extra: pip install 'pointsman[otel]'") from error

from pointsman.decision import Decision
from pointsman.errors import ConfigurationError
from pointsman.router import FEEDBACK_KINDS, Router

__all__ = ["EVALUATION", "FeedbackFromSpans", "annotate", "attributes_of"]

EVALUATION = "gen_ai.evaluation.result"
_DECISION = "pointsman.decision.id"
_PASSED, _FAILED = (
    frozenset({"pass", "passed", "correct", "relevant", "true", "yes"}),
    frozenset({"fail", "failed", "incorrect", "irrelevant", "not_relevant", "false", "no"}),
)


def attributes_of(decision: Decision) -> dict[str, Any]:
    """Return the span attributes of a decision: only names and figures, nothing from the prompt."""
    found: dict[str, Any] = {
        "gen_ai.request.model": decision.model,
        "pointsman.workload": decision.workload,
        "pointsman.environment": decision.environment,
        "pointsman.policy.version": decision.version,
        "pointsman.rule": decision.rule,
        "pointsman.arm": decision.arm,
        _DECISION: decision.decision_id,
    }
    if decision.rollout is not None:
        found["pointsman.rollout.id"] = decision.rollout
    return found


def annotate(span: Span, decision: Decision) -> None:
    """Add the decision to the span. Costs nothing for a span that is not recorded."""
    if span.is_recording():
        span.set_attributes(attributes_of(decision))


class FeedbackFromSpans(SpanProcessor):
    """Sends evaluation events of spans with a decision as feedback on the task.

    kinds         evaluation name → kind of feedback; by default a kind's own name, otherwise `downstream`
    success_from  the score from which a task counts as a success if the event has no label

    Raises ConfigurationError for an unknown kind: it would otherwise be refused at the end of each span.
    """

    def __init__(
        self, router: Router, *, kinds: Mapping[str, str] | None = None, success_from: float | None = None
    ) -> None:
        self._router, self._kinds, self._success_from = router, dict(kinds or {}), success_from
        if unknown := sorted(set(self._kinds.values()) - set(FEEDBACK_KINDS)):
            raise ConfigurationError(
                f"kinds must be of {', '.join(FEEDBACK_KINDS)}; got {', '.join(unknown)}"
            )

    def on_end(self, span: ReadableSpan) -> None:
        """Handle the end of a span. Never raises, because telemetry must not break the application."""
        decision = (span.attributes or {}).get(_DECISION)
        if not isinstance(decision, str):
            return
        for event in span.events:
            if event.name == EVALUATION:
                self._send(decision, event.attributes or {})

    def _send(self, decision: str, attributes: Mapping[str, Any]) -> None:
        name = str(attributes.get("gen_ai.evaluation.name", ""))
        kind = self._kinds.get(name) or (name if name in FEEDBACK_KINDS else "downstream")
        score, label = (
            attributes.get("gen_ai.evaluation.score.value"),
            attributes.get("gen_ai.evaluation.score.label"),
        )
        success = _success(label)
        number = float(score) if isinstance(score, (int, float)) and 0 <= score <= 1 else None
        if success is None and number is not None and self._success_from is not None:
            success = number >= self._success_from
        if success is not None or number is not None:
            self._router.feedback(decision, kind, success=success, score=number)


def _success(label: Any) -> bool | None:
    word = str(label).strip().lower() if label is not None else ""
    return True if word in _PASSED else False if word in _FAILED else None
