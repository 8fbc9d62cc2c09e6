"""Decisions on spans, and evaluations of spans as feedback, with the OpenTelemetry SDK."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed here")

from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from pointsman import ConfigurationError, Pace, Router  # noqa: E402
from pointsman.integrations.otel import EVALUATION, FeedbackFromSpans, annotate  # noqa: E402
from pointsman.testing import FakeControlPlane  # noqa: E402

POLICY: dict[str, Any] = {
    "format": 1, "workload": "chat", "models": {"small": {"model": "x/small"}, "large": {"model": "x/large"}},
    "default": "small", "fallback": ["large"],
}  # fmt: skip


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("chat", POLICY)
        yield plane


@pytest.fixture
def router(plane: FakeControlPlane) -> Iterator[Router]:
    with Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05)) as router:
        assert router.wait_ready(20)
        yield router


def test_a_span_contains_the_policy_the_model_and_the_rule(plane: FakeControlPlane, router: Router) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with provider.get_tracer("test").start_as_current_span("chat") as span:
        decision = router.decide("chat", {"prompt_tokens": 3})
        annotate(span, decision)
    (ended,) = spans.get_finished_spans()
    found = dict(ended.attributes or {})
    assert found["gen_ai.request.model"] == "x/small"
    assert (found["pointsman.workload"], found["pointsman.rule"]) == ("chat", "default")
    assert found["pointsman.decision.id"] == decision.decision_id


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (
            {"gen_ai.evaluation.name": "human_review", "gen_ai.evaluation.score.label": "pass"},
            ("human_review", True, None),
        ),
        (
            {"gen_ai.evaluation.name": "toxicity", "gen_ai.evaluation.score.label": "fail"},
            ("downstream", False, None),
        ),
        (
            {"gen_ai.evaluation.name": "rating", "gen_ai.evaluation.score.value": 0.9},
            ("satisfaction", True, 0.9),
        ),
        (
            {"gen_ai.evaluation.name": "rating", "gen_ai.evaluation.score.value": 0.2},
            ("satisfaction", False, 0.2),
        ),
        ({"gen_ai.evaluation.name": "rating", "gen_ai.evaluation.score.value": 7}, None),
        ({}, None),
    ],
)
def test_an_evaluation_of_a_span_is_feedback_on_its_task(
    plane: FakeControlPlane, event: dict[str, Any], word: tuple[str, bool, float | None] | None
) -> None:
    with Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05)) as router:
        assert router.wait_ready(20)
        provider = TracerProvider()
        provider.add_span_processor(
            FeedbackFromSpans(router, kinds={"rating": "satisfaction"}, success_from=0.5)
        )
        with provider.get_tracer("test").start_as_current_span("chat") as span:
            annotate(span, router.decide("chat"))
            span.add_event(EVALUATION, event)
    said = [(one["kind"], one["success"], one.get("score")) for one in plane.feedback]
    assert said == ([] if word is None else [word])


def test_spans_without_a_decision_are_ignored(plane: FakeControlPlane) -> None:
    with Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05)) as router:
        assert router.wait_ready(20)
        provider = TracerProvider()
        provider.add_span_processor(FeedbackFromSpans(router))
        with provider.get_tracer("test").start_as_current_span("other") as span:
            span.add_event(EVALUATION, {"gen_ai.evaluation.score.label": "pass"})
    assert plane.feedback == []


def test_an_unknown_kind_is_refused_before_a_span_ends(router: Router) -> None:
    """Otherwise the end of each evaluated span would raise into the application."""
    with pytest.raises(ConfigurationError, match="got hearsay"):
        FeedbackFromSpans(router, kinds={"rating": "hearsay"})
