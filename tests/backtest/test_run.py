"""A policy on tasks: what counts, what is left out, and that nothing is invented."""

import random
from typing import Any

import pytest

from pointsman.evaluate import CompiledPolicy, compile_policy
from rollout_app.backtest import report
from rollout_app.backtest.run import backtest
from rollout_app.backtest.single_log import LogComparison
from rollout_app.backtest.tally import GROUPS, Tally, intervals
from rollout_app.backtest.tasks import Answer, Task
from rollout_app.backtest.threshold import cheapest_within, steps, swept

SMALL, LARGE = "x/small", "x/large"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1, "workload": "w", "models": {"small": {"model": SMALL}, "large": {"model": LARGE}},
        "default": "small", "fallback": ["large", "small"], **changes,
    }  # fmt: skip


def policy(**changes: Any) -> CompiledPolicy:
    return compile_policy(document(**changes))


def task(small: Answer | None, large: Answer | None, **request: Any) -> Task:
    answers = {SMALL: small, LARGE: large}
    return Task(request, {model: answer for model, answer in answers.items() if answer is not None})


GOOD, BAD = Answer(True, 1_000), Answer(False, 1_000)
STRONG = Answer(True, 10_000)


def test_a_task_without_an_outcome_is_left_out_and_counted() -> None:
    tasks = [task(GOOD, STRONG), task(None, STRONG), task(Answer(None, 1_000), STRONG), task(BAD, STRONG)]
    result = backtest({"p": policy()}, tasks)
    assert (result.read, result.compared) == (4, 2)
    assert result.left_out == {SMALL: 2}
    assert result.policies[0].accuracy.value == 0.5


def test_an_unknown_cost_is_never_a_zero() -> None:
    tasks = [task(GOOD, STRONG), task(Answer(True, None), STRONG)]
    result = backtest({"p": policy()}, tasks)
    assert (result.compared, result.priced, result.unpriced) == (2, 1, {SMALL: 1})
    assert result.policies[0].cost_per_success.value == 1_000


def test_a_cost_of_zero_is_known() -> None:
    result = backtest({"p": policy()}, [task(Answer(True, 0), STRONG), task(Answer(True, 0), STRONG)])
    assert result.policies[0].cost_per_success.value == 0
    assert result.policies[0].saving.value == 1.0


def test_all_attempts_of_an_escalated_task_are_counted() -> None:
    escalating = policy(escalate={"to": "large", "on": ["error"], "when": "response.confidence < 0.7"})
    unsure = Answer(False, 1_000, confidence=0.2)
    result = backtest({"p": escalating}, [task(unsure, STRONG)])
    assert result.policies[0].totals.cost == 11_000
    assert result.policies[0].counts is not None and result.policies[0].counts.escalated == 1


def test_a_failure_falls_back_like_in_a_router() -> None:
    down = Answer(False, 0, error="timeout")
    result = backtest({"p": policy()}, [task(down, STRONG)])
    line = result.policies[0]
    assert line.counts is not None and line.counts.fell_back == 1
    assert line.accuracy.value == 1.0


def test_a_log_of_one_model_is_refused_with_an_explanation() -> None:
    with pytest.raises(ValueError, match="None of 1 task can be compared: 1 has no known outcome of x/large"):
        backtest({"p": policy()}, [task(GOOD, None)])


def test_a_log_of_one_model_only_shows_where_the_policies_agree() -> None:
    to_large = policy(rules=[{"id": "hard", "when": "request.prompt_tokens > 100", "use": "large"}])
    compared = LogComparison(to_large)
    for one in (task(GOOD, None, prompt_tokens=1), task(BAD, None, prompt_tokens=500)):
        compared.add(one)
    found = compared.result()
    assert (found.tasks, found.agreed, found.graded) == (2, 1, 1)
    assert found.moves == {(SMALL, LARGE): 1}
    assert found.accuracy.value == 1.0


def test_a_loss_is_reported_as_a_loss() -> None:
    tasks = [task(Answer(True, 5_000), Answer(True, 1_000)) for _ in range(200)]
    text = report.as_text(backtest({"p": policy()}, tasks))
    assert "p costs 400.0 % (400.0 to 400.0 %) more per success" in text
    assert "saves" not in text


def test_without_a_success_there_is_no_cost_per_success() -> None:
    result = backtest({"p": policy()}, [task(BAD, STRONG)] * 5)
    assert result.policies[0].cost_per_success.value is None
    assert "cost per success is unknown" in report.as_text(result)


def test_a_missing_input_is_named() -> None:
    asking = policy(rules=[{"id": "hard", "when": "request.prompt_tokens > 100", "use": "large"}])
    result = backtest({"p": asking}, [task(GOOD, STRONG)] * 3)
    assert "request.prompt_tokens (3)" in report.as_text(result)


def test_a_sweep_changes_only_one_number() -> None:
    rules = [
        {"id": "hard", "when": 'request.endpoint != "/v1" && request.prompt_tokens > 100', "use": "large"}
    ]
    tasks = [
        task(BAD if tokens > 50 else GOOD, STRONG, endpoint="/a", prompt_tokens=tokens)
        for tokens in range(100)
    ]
    result = backtest(swept(document(rules=rules), "hard", steps(0, 90, 10)), tasks)
    assert [line.name for line in result.policies] == [f"{value:g}" for value in range(0, 91, 10)]
    best = cheapest_within(result, 1.0)
    assert best is not None and best.name == "50"
    assert cheapest_within(result, 1.1) is None


def test_a_sweep_of_large_numbers_has_all_its_steps() -> None:
    """Regression: of 1,000,000 to 1,000,010 six digits were kept, and eleven steps compared two policies."""
    rules = [{"id": "hard", "when": "request.prompt_tokens > 5", "use": "large"}]
    found = swept(document(rules=rules), "hard", steps(1_000_000, 1_000_010, 11))
    assert list(found) == [str(value) for value in range(1_000_000, 1_000_011)]
    with pytest.raises(ValueError, match="too small to tell apart"):
        swept(document(rules=rules), "hard", steps(0, 1e-11, 3))


@pytest.mark.parametrize("place", ["nowhere", "two"])
def test_a_sweep_needs_exactly_one_number(place: str) -> None:
    rules = [{"id": "two", "when": "request.turns > 1 && request.prompt_tokens > 100", "use": "large"}]
    with pytest.raises(ValueError, match="no condition at 'nowhere'|holds 2 numbers"):
        swept(document(rules=rules), place, [1, 2])


def test_the_interval_is_that_of_a_proportion() -> None:
    """400 tasks, a quarter of them good: the bootstrap agrees with 1.96 standard errors."""
    tally = Tally()
    for at in range(400):
        tally.add(at, at % 4 == 0, None)
    (accuracy,) = intervals([tally], [lambda sums: sums[0].accuracy])
    assert accuracy.low is not None and accuracy.high is not None
    error = (0.25 * 0.75 / 400) ** 0.5
    assert accuracy.low == pytest.approx(0.25 - 1.96 * error, abs=0.006)
    assert accuracy.high == pytest.approx(0.25 + 1.96 * error, abs=0.006)


def test_more_tasks_than_groups_give_the_same_interval() -> None:
    """8,000 tasks in 400 groups: the interval is that of 8,000 tasks, not of 400."""
    tally, chance = Tally(), random.Random(5)
    for at in range(8_000):
        tally.add(at % GROUPS, chance.random() < 0.25, None)
    (accuracy,) = intervals([tally], [lambda sums: sums[0].accuracy])
    assert accuracy.low is not None and accuracy.high is not None and accuracy.value is not None
    error = (accuracy.value * (1 - accuracy.value) / 8_000) ** 0.5
    assert (accuracy.high - accuracy.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.25)
