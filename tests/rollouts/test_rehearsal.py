"""The parts of `manage.py replay` that need no server."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pointsman import Router
from pointsman.decision import Decision
from rollout_app.rehearsal import Harmed, parse_harm, read_tasks

CSV = "prompt_tokens,endpoint,a/small:success,a/small:cost_usd,a/small:confidence\n900,/x,1,0.0004,0.8\n"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    return str(path)


def test_it_reads_tasks_with_inputs_and_answers(tmp_path: Path) -> None:
    (task,) = read_tasks(written(tmp_path, CSV))
    assert task.request == {"prompt_tokens": 900, "endpoint": "/x"}
    answer = task.answers["a/small"]
    assert (answer.success, answer.cost_nusd, answer.confidence) == (True, 400_000, 0.8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt_tokens\n900\n", "no column"),
        (CSV.splitlines()[0] + "\n", "no tasks"),
        (CSV.replace(",1,0.0004", ",yes,0.0004"), "line 2"),
        (CSV.replace("0.0004", "-1"), "line 2"),
        (CSV.replace("0.0004", "nan"), "line 2"),
    ],
)
def test_it_says_which_line_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_tasks(written(tmp_path, text))


@pytest.mark.parametrize("text", ["success", "success:much", "vibes:-5", "success:-500", "success:nan"])
def test_it_refuses_a_harm_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="success:-5"):
        parse_harm(text)


class Recorder:
    """A router that only remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool, Any]] = []

    def record(self, decision: Decision, success: bool, **figures: Any) -> None:
        self.told.append((decision.arm, success, figures.get("cost_nusd")))


def record(harm: str, after: int, times: int = 4_000) -> list[tuple[str, bool, Any]]:
    recorder = Recorder()
    router = Harmed(cast("Router", recorder), parse_harm(harm), after, random.Random(1), rate=1.0)
    for at in range(times):
        decision = SimpleNamespace(
            arm=("baseline", "candidate")[at % 2], steps=SimpleNamespace(cost_nusd=1_000)
        )
        router.record(cast("Decision", decision), True)
    return recorder.told


def test_it_harms_the_candidate_only_and_only_from_then_on() -> None:
    told = record("success:-5", after=2_000)
    assert all(success for arm, success, _ in told[:2_000])
    assert all(success for arm, success, _ in told if arm == "baseline")
    later = [success for arm, success, _ in told[2_000:] if arm == "candidate"]
    assert 1 - sum(later) / len(later) == pytest.approx(0.05, abs=0.02)


def test_it_makes_the_candidate_dearer() -> None:
    told = record("cost:+25", after=0, times=4)
    assert [cost for _, _, cost in told] == [None, 1_250, None, 1_250]
