"""Why the cost changed: the parts add up to the total for any cells."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.engine.diagnosis.figures import total
from rollout_app.review.attribution import CostEffects, attribute, joined, model_shift
from rollout_app.review.span import TrafficSpan
from rollout_app.review.words import change_sentence

COUNTS = st.integers(0, 10**6)
SUMS = st.builds(
    lambda tasks, priced, cost, good: OutcomeSums(
        tasks=tasks,
        successes=min(good, tasks),
        failures=tasks - min(good, tasks),
        cost_n=min(priced, tasks),
        cost=cost if min(priced, tasks) else 0,
    ),
    COUNTS, COUNTS, st.integers(0, 10**15), COUNTS,
)  # fmt: skip
SIDES = st.dictionaries(st.sampled_from("abcd"), SUMS)


def sums(tasks: int, cost: int, success: float = 0.9) -> OutcomeSums:
    good = round(tasks * success)
    return OutcomeSums(
        tasks=tasks, successes=good, failures=tasks - good, cost_n=tasks, cost=tasks * cost, both_n=tasks,
        both_successes=good, both_cost=tasks * cost,
    )  # fmt: skip


@given(SIDES, SIDES)
def test_the_effects_add_up_to_the_change_of_cost(now: dict[str, Any], before: dict[str, Any]) -> None:
    cells = attribute(now, before)
    assert {cell.key for cell in cells} == now.keys() | before.keys()
    for cell in cells:
        assert cell.effects.total == cell.now.cost - cell.before.cost
    whole = joined(None, cells)
    assert whole.effects.total == total(now.values()).cost - total(before.values()).cost
    assert (whole.now, whole.before) == (total(now.values()), total(before.values()))


@pytest.mark.parametrize(
    ("now", "before", "effects"),
    [
        ({"a": sums(200, 10)}, {"a": sums(100, 10)}, CostEffects(volume=1_000)),
        ({"a": sums(100, 7)}, {"a": sums(100, 10)}, CostEffects(behaviour=-300)),
        ({}, {"a": sums(100, 10)}, CostEffects(volume=-1_000)),
        ({"a": sums(100, 10)}, {}, CostEffects(mix=1_000)),
        ({"a": OutcomeSums(tasks=9)}, {"a": OutcomeSums(tasks=7)}, CostEffects()),
    ],
)
def test_it_distinguishes_more_traffic_from_more_expensive_tasks(
    now: dict[str, Any], before: dict[str, Any], effects: CostEffects
) -> None:
    assert joined(None, attribute(now, before)).effects == effects


def test_a_shift_between_endpoints_is_mix() -> None:
    before = {"cheap": sums(80, 10), "rich": sums(20, 100)}
    now = {"cheap": sums(20, 10), "rich": sums(80, 100)}
    effects = {cell.key: cell.effects for cell in attribute(now, before)}
    assert effects == {"cheap": CostEffects(mix=-600), "rich": CostEffects(mix=6_000)}


def priced(tasks: int, known: int, cost: int) -> OutcomeSums:
    return OutcomeSums(tasks=tasks, cost_n=known, cost=known * cost)


def test_an_endpoint_that_loses_its_prices_is_no_shift_of_traffic() -> None:
    before = {"a": sums(100, 10), "b": sums(100, 10)}
    effects = {
        cell.key: cell.effects for cell in attribute({"a": priced(100, 0, 0), "b": sums(100, 10)}, before)
    }
    assert effects == {"a": CostEffects(coverage=-1_000), "b": CostEffects()}
    effects = {
        cell.key: cell.effects for cell in attribute({"a": priced(100, 50, 12), "b": sums(100, 10)}, before)
    }
    assert effects == {"a": CostEffects(coverage=-500, behaviour=100), "b": CostEffects()}


def test_growth_without_prices_is_no_shift_away_from_the_others() -> None:
    before = {"a": sums(100, 10), "b": priced(100, 0, 0)}
    now = {"a": sums(100, 10), "b": priced(900, 0, 0)}
    assert {cell.effects for cell in attribute(now, before)} == {CostEffects()}


def test_an_endpoint_that_gets_prices_costs_no_more_than_before() -> None:
    (cell,) = attribute({"a": sums(100, 10)}, {"a": priced(100, 0, 0)})
    assert cell.effects == CostEffects(coverage=1_000)


def test_the_largest_change_comes_first() -> None:
    before = {"a": sums(100, 10), "b": sums(100, 10), "c": sums(100, 10, success=0.95)}
    now = {"a": sums(100, 11), "b": sums(100, 30), "c": sums(100, 10, success=0.5)}
    assert [cell.key for cell in attribute(now, before)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("now", "before", "moved"),
    [
        ({"small": 60, "large": 40}, {"large": 100}, ("small", 0.6)),
        ({"large": 100}, {"large": 50}, None),
        ({"large": 100}, {}, None),
        ({}, {"large": 100}, None),
    ],
)
def test_it_shows_where_tasks_moved(
    now: dict[str, int], before: dict[str, int], moved: tuple[str, float] | None
) -> None:
    shift = model_shift(now, before)
    assert (shift and (shift.model, shift.share)) == moved


def said(now: OutcomeSums, before: OutcomeSums, *, moved: dict[str, int] | None = None) -> str:
    (cell,) = attribute({"/tickets": now} if now.tasks else {}, {"/tickets": before} if before.tasks else {})
    shift = model_shift(moved or {}, {"large": 100})
    text = change_sentence("/tickets", "Support", cell, span=TrafficSpan(2), bar=0.9, shift=shift)
    return text.replace("\u202f", " ")


def test_its_sentence_names_the_shift_its_cost_and_its_effect_on_success() -> None:
    dollar = 10**9
    text = said(
        sums(1_000, 6 * dollar, 0.916), sums(1_000, 10 * dollar, 0.918), moved={"small": 31, "large": 69}
    )
    assert text == (
        "/tickets (team Support) moved 31 % of its tasks to small: −$2,000.00 a day, success 91.8 % → 91.6 % "
        "(within the bar of 90.0 %)."
    )


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (
            sums(100, 10**9, 0.8),
            OutcomeSums(),
            "/tickets (team Support) is new: $50.00 a day, success 80.0 % (below the bar of 90.0 %).",
        ),
        (
            OutcomeSums(),
            sums(100, 10**9),
            "/tickets (team Support) had no tasks in this period; in the one before, they cost $100.00.",
        ),
        (
            OutcomeSums(tasks=5, cost_n=5, cost=5),
            OutcomeSums(tasks=5, cost_n=5, cost=5),
            "/tickets (team Support): $0.00 a day, success unknown: no task has a grade.",
        ),
    ],
)
def test_its_sentence_names_what_is_unknown(now: OutcomeSums, before: OutcomeSums, text: str) -> None:
    assert said(now, before) == text


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (10.0, "$5.00 a day"),
        (1.0, "$50.00 a day"),
        (0.999, "$50.00 in 23 h 59 min"),
        (38 / 1440, "$50.00 in 38 min"),
    ],
)
def test_less_than_a_day_gives_no_figure_per_day(days: float, told: str) -> None:
    """Regression: tasks of a few minutes, divided by a fraction of an hour, gave $78, $131 and $572 a day."""
    (cell,) = attribute({"a": sums(100, 500_000_000)}, {})
    said = change_sentence("a", "b", cell, span=TrafficSpan(days), bar=0.9, shift=None)
    assert told in said.replace("\u202f", " ")


def test_a_cost_that_no_task_reported_is_unknown() -> None:
    (cell,) = attribute({"a": OutcomeSums(tasks=100, successes=90, failures=10)}, {"a": sums(100, 10)})
    said = change_sentence("a", "b", cell, span=TrafficSpan(7), bar=0.9, shift=None)
    assert "change in cost unknown" in said and "$" not in said
