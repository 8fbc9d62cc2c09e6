"""Figures of any Python type: an unusable one is unknown, and neither ends a task early nor becomes a grade."""

import math
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from pointsman import Attempt, Router, Usage
from pointsman.choose import decide
from pointsman.testing import FakeControlPlane
from tests.client.deciding import assigned, entry
from tests.client.policies import two_stage

HUGE = 10**5_000  # more digits than Python writes


class Workload(Enum):
    SUMMARIES = "summaries"


class NumpyBool:
    """Like `numpy.bool_`: neither `True` nor `False` itself."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return self.value


class NotAvailable:
    """Like `pandas.NA`."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


POLICY = two_stage(timeouts={"attempt_ms": 1_000, "total_ms": 9_000})


@pytest.mark.parametrize(
    "figures",
    [
        {"latency_ms": math.nan},
        {"latency_ms": math.inf},
        {"latency_ms": -5_000_000},  # the caller's clock was set back meanwhile
        {"latency_ms": Decimal("12.5")},
        {"latency_ms": "12"},
        {"latency_ms": HUGE},
        {"latency_ms": True},
        {"cost_nusd": True},
        {"cost_nusd": HUGE},
        {"cost_usd": 10**400},
        {"usage": Usage(input=HUGE)},
    ],
)
def test_an_unusable_figure_does_not_prevent_the_fallback(figures: dict[str, Any]) -> None:
    decision = decide(assigned(entry(POLICY)), {})
    step = decision.next(Attempt(ok=False, error="timeout", **figures))
    assert (step.action, step.model, step.timeout_ms) == ("fallback", "vendor/large", 1_000)
    assert 0 <= decision.steps.latency_ms < 9_000


@pytest.mark.parametrize(
    "expected",
    [
        {"large": 0.002},  # dollars
        {"large": Decimal("0.002")},
        {"large": math.nan},
        {"large": -5},
        {"large": "2000000"},
        {"large": 10, "small": 0.5},
        0.002,
    ],
)
def test_an_unusable_expected_cost_is_unknown_and_counted(plane: FakeControlPlane, expected: Any) -> None:
    plane.serve("summaries", two_stage(budget={"max_cost_per_task_nusd": 1_000_000}))
    with plane.router(clock=lambda: 1_700_000_000.0) as router:
        decision = router.decide("summaries")
        attempt = Attempt(ok=False, error="timeout", cost_nusd=0)
        assert decision.next(attempt, expected_cost_nusd=expected).action == "fallback"
        assert decision.next(Attempt(cost_nusd=5), expected_cost_nusd=expected).action == "accept"
        router.record(decision)
        assert router.status()["figures_invalid"] == 1
    (bucket,) = plane.buckets("summaries")
    assert bucket["cost_nusd"]["sum"] == 5


@pytest.mark.parametrize("cost", [2 * 10**12, math.inf, pytest.param(HUGE, id="huge")])
def test_an_expected_cost_beyond_any_budget_is_beyond_it(cost: Any) -> None:
    policy = two_stage(budget={"max_cost_per_task_nusd": 50_000_000})
    step = decide(assigned(entry(policy)), {}).next(
        Attempt(ok=False, error="timeout", cost_nusd=0), expected_cost_nusd={"large": cost}
    )
    assert (step.action, step.code) == ("stop", "budget")


def test_an_expected_cost_that_is_not_known_is_no_invalid_figure(plane: FakeControlPlane) -> None:
    plane.serve("summaries", two_stage(budget={"max_cost_per_task_nusd": 1_000_000}))
    with plane.router(clock=lambda: 1_700_000_000.0) as router:
        decision = router.decide("summaries")
        unknown: Any = {"large": None}
        attempt = Attempt(ok=False, error="timeout", cost_nusd=0)
        assert decision.next(attempt, expected_cost_nusd=unknown).action == "fallback"
        router.record(decision)
        assert router.status()["figures_invalid"] == 0


def test_an_expected_cost_of_any_number_type_is_used() -> None:
    policy = two_stage(budget={"max_cost_per_task_nusd": 1_000_000})
    for cost in (2_000_000, 2_000_000.0, Decimal(2_000_000)):
        step = decide(assigned(entry(policy)), {}).next(
            Attempt(ok=False, error="timeout", cost_nusd=0),
            expected_cost_nusd={"large": cost},  # type: ignore[dict-item]
        )
        assert (step.action, step.code) == ("stop", "budget")


def test_an_answer_that_a_numpy_check_finds_invalid_is_escalated() -> None:
    policy = two_stage(escalate={"max": 1, "to": "large", "on": ["invalid_output"]})
    for valid, action in ((NumpyBool(False), "escalate"), (NumpyBool(True), "accept")):
        step = decide(assigned(entry(policy)), {}).next(Attempt(valid=valid))  # type: ignore[arg-type]
        assert step.action == action


@pytest.mark.parametrize(("missing", "action"), [("escalate", "escalate"), ("accept", "accept")])
def test_a_confidence_that_is_not_a_number_is_missing(missing: str, action: str) -> None:
    policy = two_stage(
        escalate={"max": 1, "to": "large", "when": "response.confidence < 0.7", "missing_confidence": missing}
    )
    assert decide(assigned(entry(policy)), {}).next(Attempt(confidence=math.nan)).action == action


@pytest.fixture
def router(plane: FakeControlPlane) -> Any:
    with plane.router(clock=lambda: 1_700_000_000.0) as router:
        yield router


@pytest.mark.parametrize("grade", [math.nan, 0.7, Decimal("0.2"), 3, NotAvailable()])
def test_a_grade_that_is_neither_true_nor_false_is_unknown(
    plane: FakeControlPlane, router: Router, grade: Any
) -> None:
    router.record(router.decide("summaries"), success=grade)
    assert router.status()["figures_invalid"] == 1
    router.close()
    (bucket,) = plane.buckets("summaries")
    assert (bucket["tasks"], bucket["ungraded"]) == (1, 1)


@pytest.mark.parametrize(
    ("grade", "successes"), [(NumpyBool(True), 1), (NumpyBool(False), 0), (1, 1), (0, 0), (1.0, 1)]
)
def test_a_grade_may_have_any_type_that_means_true_or_false(
    plane: FakeControlPlane, router: Router, grade: Any, successes: int
) -> None:
    router.record(router.decide("summaries"), success=grade)
    router.close()
    (bucket,) = plane.buckets("summaries")
    assert (bucket["successes"], bucket["failures"]) == (successes, 1 - successes)


def test_an_unknown_grade_of_a_mirror_is_not_compared(plane: FakeControlPlane, router: Router) -> None:
    router.record(router.decide("summaries"), success=True, mirror_success=math.nan)  # type: ignore[arg-type]
    router.close()
    (bucket,) = plane.buckets("summaries")
    assert bucket["mirror"]["n"] == 0


@pytest.mark.parametrize(
    "figures",
    [
        {"cost_nusd": HUGE}, {"cost_usd": 10**400}, {"usage": Usage(input=HUGE)}, {"quality": HUGE},
        {"mirror_latency_ms": HUGE},
    ],
)  # fmt: skip
def test_a_huge_figure_loses_only_itself(plane: FakeControlPlane, router: Router, figures: Any) -> None:
    router.record(router.decide("summaries"), success=True, **figures)
    assert router.status()["figures_invalid"] == 1
    router.close()
    assert plane.tasks("summaries") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"decision_id": None},
        {"decision_id": b"2.x"},
        {"success": "yes"},
        {"success": math.nan},
        {"success": 0.5},
        {"success": [True]},
    ],
)
def test_feedback_that_the_control_plane_would_refuse_raises(router: Router, arguments: Any) -> None:
    with pytest.raises(TypeError):
        router.feedback(**{"decision_id": "2.x", "kind": "downstream", "success": True, **arguments})
    assert router.status()["feedback_waiting"] == 0


def test_feedback_may_come_from_numpy(plane: FakeControlPlane, router: Router) -> None:
    router.feedback("2.x", "downstream", success=1, score=Decimal("0.5"))  # type: ignore[arg-type]
    router.close()
    assert plane.feedback == [{"decision_id": "2.x", "kind": "downstream", "success": True, "score": 0.5}]


def test_a_decision_for_a_name_that_is_no_text_has_an_id(router: Router) -> None:
    decision = router.decide(Workload.SUMMARIES)  # type: ignore[arg-type]
    assert decision.model == ""
    assert decision.decision_id.startswith("2.")
