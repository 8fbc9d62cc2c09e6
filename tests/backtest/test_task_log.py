"""A router's task log as a source, and what the drawn arms show about a policy."""

import gzip
import json
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from pointsman import Attempt, TaskLog
from pointsman.testing import FakeControlPlane
from rollout_app.backtest.drawn import Drawn, study
from rollout_app.backtest.readers.problems import UnreadableTasks
from rollout_app.backtest.readers.task_log import TaskLogFiles
from rollout_app.backtest.sources import Source, open_tasks
from rollout_app.backtest.tasks import Answer
from tests.client.policies import always, two_stage

SMALL, LARGE = "vendor/small", "vendor/large"
WEAK_FIRST, STRONG = two_stage(), always("large")
VERSIONS = {12: STRONG, 13: WEAK_FIRST}


def line(at: int = 0, arm: str = "candidate", **changes: Any) -> dict[str, Any]:
    """A task of a rollout at 20 %, from the strong model only to the weak one first."""
    ours, theirs = ((13, SMALL), (12, LARGE)) if arm == "candidate" else ((12, LARGE), (13, SMALL))
    return {
        "task_log": 1, "at": 1_790_000_000.0 + at, "environment": "production", "workload": "summaries",
        "decision": f"d-{at}", "unit": f"u-{at}", "arm": arm, "version": ours[0],
        "propensity": 0.2 if arm == "candidate" else 0.8, "differing": f"{LARGE}>{SMALL}", "rule": "default",
        "model": ours[1], "other": {"version": theirs[0], "model": theirs[1]}, "request": {"prompt_tokens": 900},
        "attempts": [{"model": ours[1], "cost_nusd": 100, "latency_ms": 5.0, "confidence": 0.9}],
        "answered": ours[1], "success": True, "cost_nusd": 100, "latency_ms": 5.0, **changes,
    }  # fmt: skip


def written(home: Path, *rows: Any, name: str = "tasks.jsonl") -> Path:
    path = home / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def studied(path: Path, document: dict[str, Any] = WEAK_FIRST, versions: Any = VERSIONS) -> Drawn:
    return study({"it": document}, versions, TaskLogFiles.of(path).tasks())["it"]


def many(good: int, bad: int, arm: str, start: int = 0, **changes: Any) -> Iterator[dict[str, Any]]:
    for at in range(good + bad):
        yield line(start + at, arm, success=at < good, **changes)


# --- the reader ---------------------------------------------------------------------------------------


def test_the_log_of_a_router_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    with FakeControlPlane() as plane:
        plane.serve("summaries", STRONG, version=12)
        plane.roll_out("summaries", WEAK_FIRST, version=13, share_pcm=50_000)
        with plane.router(task_log=TaskLog(path, max_bytes=8_192, older=50)) as router:
            for at in range(60):
                decision = router.decide("summaries", {"prompt_tokens": 9}, {"request": f"r-{at}"})
                decision.next(Attempt(confidence=0.4, cost_nusd=100, latency_ms=7))
                if not decision.steps.done:
                    decision.next(Attempt(confidence=0.9, cost_nusd=900, latency_ms=70))
                router.record(decision, success=True)
    files = TaskLogFiles.of(path)
    tasks = list(files.tasks())
    assert len(files.paths) > 2, "rotated, and all of it is read"
    assert (len(tasks), files.read.broken, files.read.told()) == (60, 0, [])
    assert {task.propensity for task in tasks} == {0.5}
    (weak, *_) = [task for task in tasks if task.version == 13]
    assert weak.task.answers == {
        SMALL: Answer(None, 100, None, 0.4, 7.0), LARGE: Answer(True, 900, None, 0.9, 70.0)
    }  # fmt: skip
    assert (weak.cost_nusd, weak.other, weak.model) == (1_000, (12, LARGE), SMALL)


def test_broken_and_duplicate_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path, line(1), '{"task_log": 1, "at": 17', line(1), "[]", '{"task_log": 2}', "\0\xff", "", line(2)
    )
    files = TaskLogFiles.of(path)
    assert [task.at for task in files.tasks()] == [1_790_000_001.0, 1_790_000_002.0]
    assert (files.read.broken, files.read.doubled) == (4, 1)
    assert files.read.told() == [
        "4 lines skipped: incomplete, or not from a task log.", "1 line skipped: repeated."
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"arm": "other"},
        {"version": "13"},
        {"at": None},
        {"cost_nusd": "free"},
        {"request": []},
        {"propensity": "NaN"},
    ],
    ids=str,
)
def test_a_line_with_invalid_figures_is_broken(tmp_path: Path, changes: dict[str, Any]) -> None:
    files = TaskLogFiles.of(written(tmp_path, line(1), {**line(2), **changes}))
    assert len(list(files.tasks())) == 1
    assert files.read.broken == 1


def test_a_file_that_is_not_a_task_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTasks, match="no valid task log line"):
        list(open_tasks(Source(str(written(tmp_path, {"model": "x"})), log="pointsman")))


def test_an_empty_log_has_no_tasks(tmp_path: Path) -> None:
    assert list(open_tasks(Source(str(written(tmp_path)), log="pointsman"))) == []


def test_a_compressed_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(line(1)).encode()))
    assert len(list(open_tasks(Source(str(path), log="pointsman")))) == 1


def test_later_feedback_is_the_grade_if_requested(tmp_path: Path) -> None:
    def word(decision: str, **said: Any) -> dict[str, Any]:
        return {"task_log": 1, "at": 1.0, "feedback": decision, "kind": "human_review", **said}

    path = written(
        tmp_path,
        line(1), line(2), line(3), line(4, error="timeout"),
        word("d-1", success=False), word("d-1", success=True), word("d-2", score=0.8), word("d-9", success=True),
        word("d-3", success=False) | {"kind": "satisfaction"}, word("d-4", success=True),
    )  # fmt: skip
    files = TaskLogFiles.of(path, "human_review", 0.7)
    assert [task.success for task in files.tasks()] == [False, True, None, False]
    assert (files.read.doubled, files.read.strangers) == (1, 1)
    assert [task.success for task in TaskLogFiles.of(path).tasks()] == [True] * 4


def test_a_mirrored_task_shows_both_models(tmp_path: Path) -> None:
    row = line(1, "baseline", mirror={"model": SMALL, "success": False, "cost_nusd": 7})
    (task,) = open_tasks(Source(str(written(tmp_path, row)), log="pointsman"))
    assert task.answers[SMALL] == Answer(False, 7)


# --- informative tasks ---------------------------------------------------------------------------------


def test_the_value_of_both_arms_is_the_weighted_mean_of_the_outcomes(tmp_path: Path) -> None:
    path = written(tmp_path, *many(180, 20, "candidate"), *many(760, 40, "baseline", 200))
    weak, strong = study(
        {"weak": WEAK_FIRST, "strong": STRONG}, VERSIONS, TaskLogFiles.of(path).tasks()
    ).values()
    assert weak.value is not None and strong.value is not None and strong.change is not None
    assert weak.value.success.value == pytest.approx(0.9, abs=0.005)
    assert strong.value.success.value == pytest.approx(0.95, abs=0.005)
    assert (weak.value.tasks, weak.value.matched) == (1_000, 200)
    assert weak.value.effective_units == pytest.approx(200)
    assert strong.change.success.value == pytest.approx(0.05, abs=0.005)
    assert weak.bounds == pytest.approx((0.9, 0.9), abs=0.005), "nothing is unknown"


def test_tasks_treated_alike_by_the_arms_count_for_both(tmp_path: Path) -> None:
    heavy: dict[str, Any] = {"model": LARGE, "other": {"version": 12, "model": LARGE}, "differing": ""}
    found = studied(written(tmp_path, *many(50, 50, "candidate", **heavy)), STRONG)
    assert found.value is not None
    assert (found.value.tasks, found.value.matched) == (100, 100)
    assert found.value.success.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"propensity": 0.0}, "invalid propensity"),
        ({"propensity": -1.0}, "invalid propensity"),
        ({"propensity": 1.5}, "invalid propensity"),
        ({"rule": "pin"}, "pinned"),
        ({"workload": "other"}, "of the workload other"),
        ({"version": 99}, "version 99 is unknown"),
        ({"other": {"version": 98, "model": LARGE}}, "version 98 is unknown"),
    ],
    ids=str,
)
def test_uninformative_tasks_are_counted_and_left_out(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    found = studied(written(tmp_path, *many(30, 10, "candidate"), *many(0, 25, "candidate", 100, **changes)))
    assert found.left_out == {why: 25}
    assert found.value is not None
    assert found.value.success.value == pytest.approx(0.75), "never counted as failed"


def test_tasks_that_were_not_drawn_are_not_used(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"propensity": 1.0, "other": None, "differing": None}
    found = studied(written(tmp_path, *many(10, 10, "baseline", **plain)))
    assert (found.tasks, found.undrawn, found.value, found.bounds) == (0, 20, None, None)


def test_an_unused_model_is_unknown_and_bounds_the_total(tmp_path: Path) -> None:
    third = two_stage(
        models={**two_stage()["models"], "huge": {"model": "vendor/huge"}},
        rules=[{"id": "heavy", "when": "request.prompt_tokens > 8000", "use": "huge"}],
    )
    heavy = {"request": {"prompt_tokens": 9_000}}
    path = written(tmp_path, *many(90, 10, "candidate"), *many(50, 50, "candidate", 100, **heavy))
    found = studied(path, third)
    assert found.unsupported == {"vendor/huge": 100}
    assert found.value is not None and found.value.tasks == 100
    assert found.bounds == pytest.approx((0.45, 0.95))


def test_a_policy_that_continues_differently_is_unknown(tmp_path: Path) -> None:
    other = two_stage(
        escalate={"max": 1, "to": "large", "on": ["error"], "when": "response.confidence < 0.2"}
    )
    found = studied(written(tmp_path, *many(90, 10, "candidate")), other)
    assert (found.value, found.unsupported) == (None, {SMALL: 100})


def test_missing_grades_and_costs_are_counted_and_not_zero(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        *many(80, 20, "candidate"), *(line(at, success=None, cost_nusd=None) for at in range(100, 150)),
    )  # fmt: skip
    value = studied(path).value
    assert value is not None
    assert (value.ungraded, value.unpriced) == (50, 50)
    assert value.success.value == pytest.approx(0.8, abs=0.005)
    assert value.cost_per_task.value == pytest.approx(100)


@pytest.mark.parametrize(
    "rows", [[], [line(1, success=None, cost_nusd=None)], [line(1, "baseline")]], ids=len
)
def test_without_knowledge_there_is_no_estimate(tmp_path: Path, rows: Sequence[dict[str, Any]]) -> None:
    value = studied(written(tmp_path, *rows)).value
    assert (
        value is None
        or (value.success.value, value.cost_per_task.value, value.cost_per_success.value) == (None,) * 3
    )


def test_a_tiny_propensity_is_clipped_and_named(tmp_path: Path) -> None:
    value = studied(written(tmp_path, *many(5, 5, "candidate", propensity=0.000_1))).value
    assert value is not None
    assert value.clipped == 10


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    asks = two_stage(rules=[{"id": "vip", "when": 'request.customer_tier == "gold"', "use": "large"}])
    found = studied(written(tmp_path, *many(9, 1, "candidate")), asks)
    assert found.missing == {"request.customer_tier": 10}


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def policies(tmp_path: Path) -> list[str]:
    for name, document in (("strong", STRONG), ("weak", WEAK_FIRST)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return [str(tmp_path / "strong.json"), str(tmp_path / "weak.json")]


@pytest.mark.django_db
def test_the_command_explains_that_an_unknown_version_is_uninformative(
    tmp_path: Path, policies: list[str]
) -> None:
    out = StringIO()
    path = written(tmp_path, *many(9, 1, "candidate"), "{")
    call_command("backtest", *policies, "--tasks", str(path), "--log", "pointsman", stdout=out)
    assert "10 tasks, version 13 is unknown" in out.getvalue()
    assert "1 line skipped: incomplete" in out.getvalue()
    assert "No arm acted as it would, so nothing is known about it." in out.getvalue()
