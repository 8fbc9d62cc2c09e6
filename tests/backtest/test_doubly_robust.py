"""The estimate compared with a known truth, with a wrong outcome model. benchmarks/drawn.py has the long runs."""

import math
from typing import NamedTuple

import pytest

from rollout_app.backtest.doubly_robust import LEAST_UNITS, Observation, change_of, value_of
from tests.support.drawn import DrawnLog

RUNS = 40
LOGS = {
    "a fifth": DrawnLog(400, 0.2),
    "a twentieth": DrawnLog(700, 0.05),
    "sticky units": DrawnLog(1_200, 0.4, (0.75, 0.7), per_unit=10, unlike=0.15),
    "grades missing more in one arm": DrawnLog(400, 0.2, ungraded=(0.02, 0.3)),
    "hardly a failure": DrawnLog(400, 0.2, (0.99, 0.985)),
}


class Runs(NamedTuple):
    """By figure: the number of intervals that covered the truth, and the mean error."""

    covered: dict[str, int]
    error: dict[str, float]


def simulated(log: DrawnLog, runs: int) -> Runs:
    covered, errors = dict.fromkeys(log.truth, 0), dict.fromkeys(log.truth, 0.0)
    for seed in range(runs):
        ours, theirs = log.draw(seed)
        for name, found in log.figures(value_of(ours), change_of(ours, theirs)).items():
            assert found.value is not None and found.low is not None and found.high is not None
            covered[name] += found.low <= log.truth[name] <= found.high
            errors[name] += (found.value - log.truth[name]) / runs
    return Runs(covered, errors)


@pytest.fixture(scope="module")
def found() -> dict[str, Runs]:
    return {name: simulated(log, RUNS) for name, log in LOGS.items()}


def test_its_intervals_cover_the_truth_in_93_of_100(found: dict[str, Runs]) -> None:
    covered = [count for runs in found.values() for count in runs.covered.values()]
    assert sum(covered) / len(covered) / RUNS >= 0.93
    assert min(covered) >= 0.85 * RUNS, "no figure of any log is far below"


@pytest.mark.parametrize("name", LOGS)
def test_it_is_unbiased_with_any_outcome_model(found: dict[str, Runs], name: str) -> None:
    truth, error = LOGS[name].truth, found[name].error
    assert abs(error["success"]) < 0.02
    assert abs(error["cost_per_success"]) < 0.05 * truth["cost_per_success"]


def test_a_wrong_outcome_model_costs_width_but_not_correctness() -> None:
    """The model says the opposite of the truth: the result is still the weighted mean of the outcomes."""
    one = [Observation(f"u{at}", (), 0.5, at % 2 == 0, at % 4 == 0, 10) for at in range(400)]
    assert value_of(one).success.value == pytest.approx(0.5, abs=0.005)


def test_doubling_the_tasks_of_each_unit_does_not_narrow_an_interval() -> None:
    single = [Observation(f"u{at}", (), 0.5, at % 2 == 0, at % 6 == 0, 10) for at in range(400)]
    once, twice = value_of(single).success, value_of([one for one in single for _ in range(2)]).success
    assert once.low is not None and twice.low is not None
    assert twice.low == pytest.approx(once.low, abs=0.002)


def test_too_few_units_have_a_value_and_no_interval() -> None:
    few = [Observation(f"u{at}", (), 0.5, True, True, 10) for at in range(LEAST_UNITS - 1)]
    found = value_of(few)
    assert (found.success.value, found.success.low, found.success.high) == (1, None, None)
    assert found.cost_per_success.value == 10


@pytest.mark.parametrize("good", [True, False])
def test_equal_outcomes_are_not_certain(good: bool) -> None:
    found = value_of([Observation(f"u{at}", (), 0.5, True, good, 10) for at in range(100)])
    assert found.success.low is not None and found.success.high is not None
    assert found.success.high - found.success.low > 0.02
    assert found.cost_per_success.value == (10 if good else None), (
        "without a success there is no cost per success"
    )


def test_free_tasks_cost_nothing_and_have_no_relative_change() -> None:
    free = [Observation(f"u{at}", (), 0.5, True, True, 0) for at in range(100)]
    assert value_of(free).cost_per_task.value == 0
    assert change_of(free, free).cost_per_task.value is None


def test_no_legal_outcome_raises() -> None:
    for probability in (1e-9, 0.005, 1.0):
        for cost in (None, 0, 10**12):
            for success in (None, True, False):
                some = [Observation("one", (("k", at),), probability, True, success, cost) for at in range(3)]
                found = value_of(some)
                assert all(
                    one.value is None or math.isfinite(one.value)
                    for one in (found.success, found.cost_per_task, found.cost_per_success)
                )
                assert change_of(some, some).tasks == 3
