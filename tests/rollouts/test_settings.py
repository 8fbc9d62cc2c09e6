"""Which margins, weights and bounds a workload's own guardrail may have, and what the refusal says."""

from typing import Any

import pytest

from controlplane.core.actors import SYSTEM
from controlplane.core.errors import InvalidInput
from rollout_app import actions
from rollout_app.engine.metrics import Metric
from rollout_app.models import GuardrailOverride
from tests.support import builders

pytestmark = pytest.mark.django_db
COST, FAILURE, QUALITY = Metric.COST_PER_SUCCESS, Metric.FAILURE, Metric.QUALITY
# (metric, field, the greatest value that is accepted, the least above it that is refused, the unit in the message)
LIMITS = [
    (COST, "margin", 9.99, 10, "share of the baseline's value"),
    (QUALITY, "margin", 0.99, 1, "share of the baseline's value"),
    (FAILURE, "margin", 0.99, 1, "share of tasks"),
    (COST, "weight", 1, 1.01, "up to 1"),
    (FAILURE, "weight", 1, 1.01, "up to 1"),
    (COST, "bound", 9e17, 1e18, "Nano-dollars per success"),
    (QUALITY, "bound", 0.99, 1, "or a score"),
    (FAILURE, "bound", 0.99, 1, "of tasks"),
]


@pytest.mark.parametrize(("metric", "name", "accepted", "refused", "unit"), LIMITS)
def test_it_refuses_a_value_out_of_range_and_names_its_unit(
    metric: Metric, name: str, accepted: float, refused: float, unit: str
) -> None:
    workload = builders.workload()
    given: dict[str, Any]
    for value in (0, -1, refused):
        given = {name: value}
        with pytest.raises(InvalidInput, match=unit) as error:
            actions.set_guardrail(workload, metric, actor=SYSTEM, reason="r", **given)
        assert [problem["path"] for problem in error.value.extra["problems"]] == [name]
        assert error.value.detail.startswith(f"{name}: ")
    assert not GuardrailOverride.objects.exists()
    given = {name: accepted}
    actions.set_guardrail(workload, metric, actor=SYSTEM, reason="r", **given)
    assert getattr(GuardrailOverride.objects.get(), name) == accepted


@pytest.mark.parametrize("weight", [1e-200, 9e-7])
def test_it_refuses_a_weight_that_counts_for_nothing(weight: float) -> None:
    """Regression: with 1e-200, every evaluation of a ratio raised, and the rollout held for good."""
    workload = builders.workload()
    with pytest.raises(InvalidInput, match="From 0.000001 up to 1"):
        actions.set_guardrail(workload, QUALITY, actor=SYSTEM, reason="r", weight=weight)
    assert actions.set_guardrail(workload, QUALITY, actor=SYSTEM, reason="r", weight=1e-6).weight == 1e-6


def test_it_names_every_problem_at_once() -> None:
    workload = builders.workload()
    with pytest.raises(InvalidInput) as error:
        actions.set_guardrail(workload, "vibes", actor=SYSTEM, margin=0, weight=0, bound=0)
    problems = error.value.extra["problems"]
    assert [problem["path"] for problem in problems] == ["metric", "margin", "weight", "bound"]
    assert all(metric in problems[0]["message"] for metric in Metric)
