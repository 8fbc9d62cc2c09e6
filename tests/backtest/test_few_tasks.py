"""A few tasks prove little: intervals that hold at 0 and 100 %, sentences that claim no more than they know."""

import pytest

from rollout_app.backtest import report
from rollout_app.backtest.run import backtest
from rollout_app.backtest.tally import Interval, TaskSums, of_difference
from rollout_app.backtest.tasks import Answer
from tests.backtest.test_run import BAD, GOOD, STRONG, policy, task


@pytest.mark.parametrize(
    ("good", "tasks", "low", "high"),  # Newcombe 1998, method 4
    [(2, 2, 0.1979, 1), (0, 50, 0, 0.0889), (5, 5, 0.4629, 1), (0, 1, 0, 0.9454)],
)
def test_all_or_none_of_a_few_is_not_certain(good: int, tasks: int, low: float, high: float) -> None:
    result = backtest({"p": policy()}, [task(GOOD if at < good else BAD, STRONG) for at in range(tasks)])
    found = result.policies[0].accuracy
    assert found.low == pytest.approx(low, abs=0.001)
    assert found.high == pytest.approx(high, abs=0.001)


def test_a_difference_of_a_few_tasks_is_not_certain() -> None:
    result = backtest({"p": policy()}, [task(BAD, STRONG)] * 2)
    change = result.policies[0].accuracy_change
    assert (change.value, change.low) == (-1, -1)
    assert change.high is not None and change.high > -0.5


@pytest.mark.parametrize(("wrong", "claimed"), [(4, False), (5, False), (7, True), (40, True)])
def test_a_difference_on_a_few_of_many_tasks_is_not_certain(wrong: int, claimed: bool) -> None:
    """Regression: of 4 differing tasks among 1,000 it said "0.4 points fewer right" (exact paired test: p = .125)."""
    equal = [task(GOOD, STRONG)] * (900 - wrong) + [task(BAD, Answer(False, 10_000))] * 100
    result = backtest({"p": policy()}, equal + [task(BAD, STRONG)] * wrong)
    change = result.policies[0].accuracy_change
    assert change.value == pytest.approx(-wrong / 1_000)
    assert change.low is not None and change.high is not None
    assert -0.06 < change.low < change.high and (change.high < 0) is claimed
    assert ("fewer right" in report.as_text(result)) is claimed
    assert result.models[0].accuracy_change.value == 0


def test_no_difference_on_a_few_tasks_is_not_certain() -> None:
    mine = TaskSums(n=40, successes=20, priced=0, good=0, cost=0)
    found = of_difference(Interval(0.0, 0.0, 0.0), mine, mine, 0)
    assert found.low is not None and found.high is not None
    assert found.low < -0.02 and found.high > 0.02


def test_a_saving_on_a_few_tasks_is_not_claimed() -> None:
    result = backtest({"p": policy()}, [task(GOOD, STRONG)] * 5)
    assert result.policies[0].saving.value == 0.9
    assert "too few tasks to say what it saves" in report.as_text(result)
    assert "saves 90.0 %" in report.as_text(backtest({"p": policy()}, [task(GOOD, STRONG)] * 50))


def test_the_bar_is_met_with_a_caveat_on_a_few_tasks() -> None:
    few, many = ([task(GOOD, STRONG)] * count for count in (5, 500))
    assert "reaches below the bar" in report.as_text(backtest({"p": policy()}, few), bar=0.9)
    assert "reaches below the bar" not in report.as_text(backtest({"p": policy()}, many), bar=0.9)


def test_a_bar_that_is_met_at_an_unknown_cost_is_met() -> None:
    result = backtest({"p": policy()}, [task(Answer(True, None), STRONG)] * 3)
    said = report.as_text(result, bar=0.9)
    assert "p: the bar of 90.0 % is met, but the cost per success is unknown." in said
    assert "None of them" not in said


def test_free_models_have_a_known_cost() -> None:
    said = report.as_text(backtest({"p": policy()}, [task(Answer(True, 0), Answer(True, 0))] * 3))
    assert "is free" in said
    assert "cost per success is unknown" not in said


def test_a_score_that_no_task_has_is_named() -> None:
    result = backtest({"p": policy()}, [task(GOOD, STRONG, confidence=0.3)], score="confidense")
    assert "1 has no confidense and is not ranked." in report.coverage(result)
