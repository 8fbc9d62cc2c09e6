"""The table and the chart of both arms on a rollout's page: costs over the tasks of which they are known."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.web.display import money
from policies_app.models import Environment, Workload
from rollout_app.console.comparison import ArmComparison, compare_arms
from rollout_app.models import ArmTotals, Rollout
from tests.support.people import running


@pytest.fixture
def rollout(summaries: Workload, production: Environment) -> Rollout:
    return running(summaries, production)


def served(rollout: Rollout, arm: str, at: int = 1, stage: int = 0, **figures: Any) -> None:
    """Store a minute of an arm: 100 tasks that all succeed, of known cost 1,000 each, except for `figures`."""
    place = {"environment": rollout.environment, "workload": rollout.workload, "rollout": str(rollout.pk)}
    counted = {
        "tasks": 100, "successes": 100, "cost_n": 100, "cost_sum": 100_000, "graded_n": 100,
        "graded_successes": 100, "graded_sum": 100_000, **figures,
    }  # fmt: skip
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=at)
    version = 1 + (arm == "candidate")
    ArmTotals.objects.create(**place, stage=stage, arm=arm, version=version, minute=minute, **counted)


def lines(compared: ArmComparison) -> dict[str, tuple[str, str, str]]:
    plain = str.maketrans({"\u202f": " "})
    return {
        line.label: (line.baseline, line.candidate, line.difference.translate(plain))
        for line in compared.lines
    }


def test_costs_are_those_of_the_tasks_whose_cost_is_known(rollout: Rollout) -> None:
    """Half of the candidate's tasks have no cost; the others cost as much as the baseline's."""
    served(rollout, "baseline")
    half = {"cost_n": 50, "cost_sum": 50_000, "graded_n": 50, "graded_successes": 50, "graded_sum": 50_000}
    served(rollout, "candidate", **half)
    compared = compare_arms(rollout)
    found = lines(compared)
    for label in ("Cost per success", "Cost per task"):
        baseline, candidate, difference = found[label]
        assert baseline == candidate == money(1_000)
        assert difference.startswith("0.0")
    assert found["Unpriced"][2].startswith("+50.0")
    [cost] = [chart for chart in compared.charts if chart.name == "cost"]
    assert [value for line in cost.lines.values() for _, value in line] == [1_000, 1_000]


def test_the_shadow_stage_is_no_part_of_the_comparison(rollout: Rollout) -> None:
    """Only the baseline serves in shadow. A worse hour later looked like a difference between equal arms."""
    Rollout.objects.filter(pk=rollout.pk).update(stages=[{"mode": "shadow"}, *rollout.stages], stage=0)
    rollout.refresh_from_db()
    served(rollout, "baseline", at=30, successes=95, failures=5)
    assert lines(compare_arms(rollout))["Tasks"][:2] == ("100", "0")
    Rollout.objects.filter(pk=rollout.pk).update(stage=1)
    rollout.refresh_from_db()
    for arm in ("baseline", "candidate"):
        served(rollout, arm, stage=1, successes=80, failures=20)
    compared = compare_arms(rollout)
    assert lines(compared)["Success"][2].startswith("0.0")
    assert lines(compared)["Tasks"][:2] == ("100", "100") and compared.without_shadow


def test_a_grade_without_a_cost_makes_nothing_cheaper(rollout: Rollout) -> None:
    """People graded all tasks, but the cost of half of them was not known then."""
    served(rollout, "baseline")
    served(rollout, "candidate", graded_n=50, graded_successes=50, graded_sum=50_000)
    assert lines(compare_arms(rollout))["Cost per success"][2].startswith("0.0")


def test_an_arm_without_any_cost_has_no_cost_per_success(rollout: Rollout) -> None:
    served(rollout, "baseline")
    none = dict.fromkeys(("cost_n", "cost_sum", "graded_n", "graded_successes", "graded_sum"), 0)
    served(rollout, "candidate", **none)
    assert lines(compare_arms(rollout))["Cost per success"][1:] == ("–", "–")


def test_minutes_from_before_graded_costs_were_stored_still_count(rollout: Rollout) -> None:
    for arm in ("baseline", "candidate"):
        served(rollout, arm, graded_n=0, graded_successes=0, graded_sum=0)
    assert lines(compare_arms(rollout))["Cost per success"][0] == money(1_000)


def test_grades_before_their_tasks_are_reported_are_not_a_negative_share(rollout: Rollout) -> None:
    for arm in ("baseline", "candidate"):
        served(rollout, arm, tasks=98, ungraded=-2)
    assert "Ungraded" not in lines(compare_arms(rollout))
