"""The outlook is computed rarely, counted down in between, and computed again when it no longer holds."""

from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.measures import outlook
from rollout_app.evaluation.outlooks import with_outlook
from tests.support.evidence_builders import arm, ledger, stratum


def judged(looks: int) -> tuple[Accumulator, Judgement]:
    opened = ledger(3, looks=looks, n=(100, 100))
    return opened, opened.judge(3, forecast=False, detail=False)


def needed(judgement: Judgement) -> dict[str, int | None]:
    return {v.name: v.needed_tasks for v in judgement.verdicts if v.waited_for}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the guardrails for which a forecast was computed."""
    asked: list[str] = []
    kept = outlook.needed_tasks

    def needed_tasks(measure: Any, *args: Any) -> int | None:
        asked.append(str(measure.metric))
        return kept(measure, *args)

    monkeypatch.setattr("rollout_app.engine.judgement.needed_tasks", needed_tasks)
    return asked


def test_all_waiting_guardrails_show_the_longest_forecast(made: list[str]) -> None:
    opened, judgement = judged(5)
    told, kept = with_outlook(opened, judgement, (), 3)
    each = needed(opened.forecast(judgement, 3))
    longest = max(n for n in each.values() if n is not None)
    assert max(n for n in needed(told).values() if n is not None) == pytest.approx(longest, rel=0.05)
    assert kept[:2] == [3, 500]


def test_it_counts_down_until_a_quarter_more_tasks_have_arrived(made: list[str]) -> None:
    opened, judgement = judged(8)
    told, kept = with_outlook(opened, judgement, (), 3)
    first = max(n or 0 for n in needed(told).values())
    asked = len(made)
    assert asked
    opened.add(stratum(3, 8, arm(100), arm(100)))
    later, again = with_outlook(opened, opened.judge(3, forecast=False, detail=False), kept, 3)
    assert again == kept and len(made) == asked
    assert set(needed(later).values()) == {first - 100}
    opened.add(stratum(3, 9, arm(100), arm(100)))
    with_outlook(opened, opened.judge(3, forecast=False, detail=False), kept, 3)
    assert len(made) > asked  # 1,000 tasks are a quarter more than 800


def test_a_forecast_does_not_apply_to_the_next_stage(made: list[str]) -> None:
    opened, judgement = judged(8)
    _, kept = with_outlook(opened, judgement, (), 3)
    asked = len(made)
    with_outlook(opened, judgement, kept, 4)
    assert len(made) > asked


def test_it_recomputes_an_unknown_forecast_no_more_often(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout_app.engine.judgement.needed_tasks", lambda *args: None)
    opened, judgement = judged(8)
    told, kept = with_outlook(opened, judgement, (), 3)
    assert set(needed(told).values()) == {None}
    later, again = with_outlook(opened, judgement, kept, 3)
    assert set(needed(later).values()) == {None}
    assert again == kept


@pytest.mark.parametrize(("share", "least", "most"), [(0.05, 0.99, 1.01), (0.5, 1.3, 1.5), (0.95, 4.0, 5.0)])
def test_a_task_tells_less_at_a_larger_share(share: float, least: float, most: float) -> None:
    """At 95 % a task is worth a twentieth of a task at 5 %, so √20 times as many tasks are needed."""
    assert least <= outlook.pace_of([(1_000, 19_000)], share, 10).dilution <= most


def test_a_forecast_is_never_less_than_two_windows() -> None:
    assert outlook.pace_of([(1_000, 19_000)], 0.5, 25).least == 50
    opened, judgement = judged(20)
    assert all((n or 200) >= 200 for n in needed(opened.forecast(judgement, 3)).values())


@pytest.mark.parametrize("arms", [[], [(0, 100)], [(100, 0)]])
def test_an_empty_arm_gives_no_pace(arms: list[tuple[int, int]]) -> None:
    assert outlook.pace_of(arms, 0.5, 0) == outlook.Pace()
