"""The figures given by the sources of the recorded sets (SOURCES.md), computed by the backtest."""

import math
import random
from collections.abc import Callable
from statistics import stdev

import pytest

from pointsman.evaluate import CompiledPolicy, compile_policy
from rollout_app import recorded
from rollout_app.backtest.curve import by_score, random_router, ranked
from rollout_app.backtest.report import as_document, as_text
from rollout_app.backtest.run import Backtest, Line, backtest
from rollout_app.backtest.tasks import Task


def always(model: str, other: str) -> CompiledPolicy:
    models = {"first": {"model": other}, "second": {"model": model}}
    return compile_policy(
        {"format": 1, "workload": "w", "models": models, "default": "second", "fallback": ["first"]}
    )


def of(lines: list[Line], name: str) -> Line:
    return next(line for line in lines if line.name == name)


def compared(tasks: list[Task], weak: str, strong: str) -> Backtest:
    return backtest({"weak for all": always(weak, strong)}, tasks)


def test_mmlu_is_as_recorded() -> None:
    result = compared(recorded.mmlu(), recorded.WEAK, recorded.STRONG)
    assert (result.read, result.compared, result.priced) == (14_037, 14_037, 14_037)
    assert round(100 * (of(list(result.models), recorded.WEAK).accuracy.value or 0), 3) == 68.091
    assert round(100 * (of(list(result.models), recorded.STRONG).accuracy.value or 0), 3) == 80.587
    assert result.strong == recorded.STRONG


def test_gsm8k_is_as_recorded() -> None:
    result = compared(recorded.gsm8k(), recorded.WEAK, recorded.STRONG)
    assert result.compared == 1_307
    assert round(100 * (of(list(result.models), recorded.WEAK).accuracy.value or 0), 3) == 63.734
    assert round(100 * (of(list(result.models), recorded.STRONG).accuracy.value or 0), 3) == 85.769


def test_the_more_expensive_model_of_routerarena_is_the_weaker_one() -> None:
    result = compared(recorded.routerarena(), recorded.HAIKU, recorded.GEMINI)
    haiku, gemini = of(list(result.models), recorded.HAIKU), of(list(result.models), recorded.GEMINI)
    assert round(haiku.totals.cost / 1e9, 4) == 0.1424
    assert round(gemini.totals.cost / 1e9, 4) == 0.0384
    assert (haiku.totals.scored, gemini.totals.scored) == (809, 809)
    assert round(haiku.totals.mean_score or 0, 4) == 0.5234
    assert round(gemini.totals.mean_score or 0, 4) == 0.6901
    assert "0.5234" in as_text(result) and "0.6901" in as_text(result)
    assert [round(line["mean_score"], 4) for line in as_document(result)["models"]] == [0.5234, 0.6901]
    assert (result.weak, result.strong) == (recorded.HAIKU, recorded.GEMINI)
    (line,) = result.policies
    assert line.saving.high is not None and line.saving.high < 0, "the weak model costs more: no saving"


@pytest.mark.parametrize(
    ("tasks", "printed"),
    [(recorded.mmlu, (0.501, 0.4996, 0.7986)), (recorded.gsm8k, (0.501, 0.4995, 0.7973))],
)
def test_a_random_order_scores_as_the_source_says(
    tasks: Callable[[], list[Task]], printed: tuple[float, ...]
) -> None:
    """The printed figures are means over random orders that nobody recorded, so they agree within their error.

    No seed gives them to the digit: see docs/reference/backtest.md. An order is as likely as its reverse, so the exact
    APGR is 0.5. RouteLLM's program takes the mean of 10 orders; ours takes 200.
    """
    gains = [
        int(task.answers[recorded.STRONG].success or 0) - int(task.answers[recorded.WEAK].success or 0)
        for task in tasks()
    ]
    ours = random_router(gains)
    chance, orders = random.Random(5), []
    for _ in range(30):
        chance.shuffle(gains)
        orders.append(ranked(gains))
    for figure, source in zip(("apgr", "cpt_50", "cpt_80"), printed, strict=True):
        error = stdev(getattr(order, figure) for order in orders) * math.sqrt(1 / 10 + 1 / 200)
        assert getattr(ours, figure) == pytest.approx(source, abs=2 * error)
    assert ours.apgr == pytest.approx(
        0.5, abs=2 * stdev(order.apgr or 0 for order in orders) / math.sqrt(200)
    )


def test_the_confidence_of_gsm8k_is_a_weak_signal() -> None:
    tasks = recorded.gsm8k()
    gains = [
        int(task.answers[recorded.STRONG].success or 0) - int(task.answers[recorded.WEAK].success or 0)
        for task in tasks
    ]
    scores = [task.answers[recorded.WEAK].confidence or 0.0 for task in tasks]
    assert 0.55 < (by_score(gains, scores).apgr or 0) < 0.65


def test_the_ranking_by_an_answers_confidence_is_scored_and_a_missing_score_is_named() -> None:
    tasks, policy = recorded.gsm8k(), always(recorded.WEAK, recorded.STRONG)
    result = backtest({"it": policy}, tasks, score=f"{recorded.WEAK}:confidence")
    score = result.scores[f"{recorded.WEAK}:confidence"]
    assert (result.unranked, 0.55 < (score.apgr or 0) < 0.65) == (0, True)
    missing = backtest({"it": policy}, tasks, score="attributes.score")
    assert (missing.unranked, missing.scores) == (1_307, {})
    assert "1,307 have no attributes.score and are not ranked." in as_text(missing)


def test_without_scores_there_is_no_mean_score() -> None:
    result = compared(recorded.gsm8k(), recorded.WEAK, recorded.STRONG)
    assert result.oracle.totals.mean_score is None and "mean score" not in as_text(result)
