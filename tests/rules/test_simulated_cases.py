"""Whole rollouts that the first engine got wrong, each simulated once with the present one (benchmarks/simulated).

docs/explanation/statistics.md has the number of correct results in 200 runs of each.
"""

from dataclasses import replace

import pytest

from benchmarks.guardrails import summary
from benchmarks.simulated.rollout import Run, simulate
from benchmarks.simulated.scenario import Scenario
from benchmarks.simulated.scenarios import ALL

BY_NAME = {scenario.name: scenario for scenario in ALL}
SEED = 31_000
NEVER_FULL = [
    "3 times dearer on 40 % of tasks, whose cost is unknown",
    "-5 points, 60 % of its failures ungraded",
    "-5 points, 70 % of its failures after the lag",
]
NOT_TAKEN_BACK = [
    "identical, 30 % of successes late",
    "identical, 40 % of successes ungraded",
    "identical, graded share 1 % at random",
]
TAKEN_BACK = [
    ("one unit of 30 %: everything fails", 20, "failure"),
    ("300 tenants, from 5 %: -10 points", 2_000, "failure"),
    ("baseline 99.85 %, one success, then only failures", 60, "failure"),
    ("cost per success doubled", 400, "cost_per_success"),
]


@pytest.mark.parametrize("name", NEVER_FULL)
def test_missing_data_makes_no_arm_look_good(name: str) -> None:
    run = simulate(replace(BY_NAME[name], evaluations=90), SEED)
    assert run.end != "full"
    assert run.codes.get("incomplete") or run.end == "rolled back"


@pytest.mark.parametrize("name", NOT_TAKEN_BACK)
def test_missing_data_is_not_harm(name: str) -> None:
    assert simulate(replace(BY_NAME[name], evaluations=90), SEED).end == "hold"


@pytest.mark.parametrize(("name", "most", "by"), TAKEN_BACK)
def test_harm_is_found_in_time(name: str, most: int, by: str) -> None:
    run = simulate(BY_NAME[name], SEED)
    assert (run.end, run.by) == ("rolled back", by)
    assert run.candidate_tasks <= most


def test_the_main_use_case_reaches_full() -> None:
    assert simulate(BY_NAME["weak first, 40 % escalated, cost -50 %"], SEED).end == "full"


def test_the_reason_names_the_harmed_endpoint() -> None:
    run = simulate(BY_NAME["one endpoint of 5 % at -30 points"], SEED)
    assert run.end == "rolled back" and "endpoint /a" in run.named


def test_a_healthy_baseline_with_few_tasks_is_not_called_unhealthy() -> None:
    run = simulate(replace(BY_NAME["identical, 20 tasks an hour, 60 days"], evaluations=300), SEED)
    assert run.codes.get("baseline_unhealthy", 0) <= 0.03 * 300


def test_the_evidence_plan_keeps_total_harm_within_the_margin() -> None:
    """Harm of ten points on a fifth of the traffic is two points overall."""
    assert simulate(BY_NAME["plan evidence: -10 points"], SEED).harm <= 0.02


def test_a_row_of_the_table_adds_up_its_runs() -> None:
    scenario = Scenario("made up", goal="none")
    runs = [
        Run("rolled back", 900, 100, 9, by="failure", named=("/mail",), harm=0.03),
        Run("rolled back", 700, 300, 9, by="failure"),
        Run("full", 5_000, 2_500, 200),
        Run("hold", 100, 10, 1, by="amber", harm=0.02),
    ]
    row = summary(scenario, runs)
    assert (row["rolled_back"], row["full"], row["hold"], row["beyond"]) == (50.0, 25.0, 25.0, 25.0)
    assert (row["median"], row["mean"], row["tasks_until_full"]) == (200, 200, 5_000)
    assert (row["by"], row["named"]) == ([("failure", 2)], [("/mail", 1)])
