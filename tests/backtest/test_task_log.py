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
from rollout_app.backtest.readers import task_log
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
    assert len(files.paths) > 2, "the log was rotated, and every file is read"
    assert (len(tasks), files.read.broken, files.read.sentences()) == (60, 0, [])
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
    assert (files.read.broken, files.read.repeated) == (4, 1)
    assert files.read.sentences() == [
        "4 lines skipped: incomplete, or not from a task log.", "1 line skipped: repeated.",
        "row 2, column 25: Input data was truncated",
        "row 4: Expected `object`, got `array`",
        "row 5, column task_log: Invalid enum value 2",
        "row 6, column 1: JSON is malformed: invalid character",
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


def test_a_broken_line_is_named_by_file_row_and_column_and_the_rest_of_a_kind_is_counted(
    tmp_path: Path,
) -> None:
    written(tmp_path, line(1), *({**line(at), "version": "13"} for at in range(18)), name="tasks.1.jsonl")
    path = written(
        tmp_path, line(2), {**line(3), "attempts": [{"model": 7}]}, {**line(4), "cost_nusd": -5}, [], {}
    )
    path.write_bytes(path.read_bytes() + b'{"task_log": 1, "unit": "\xff"}\n' + b"x" * 3_000_000 + b"\n{")
    files = TaskLogFiles.of(path)
    assert len(list(files.tasks())) == 2
    told = files.read.sentences()
    assert told[1] == "row 2, column version: tasks.1.jsonl: Expected `int`, got `str`"
    assert told[19:] == [
        "row 2, column attempts[0].model: tasks.jsonl: Expected `str`, got `int`",
        "row 3, column cost_nusd: tasks.jsonl: Expected `int` >= 0",
        "… and 2 more of this kind (not from a task log).",
        "row 6: tasks.jsonl: not UTF-8",
        "row 7: tasks.jsonl: longer than 1,048,576 bytes",
        "row 8, column 2: tasks.jsonl: Input data was truncated",
    ]


def test_a_torn_compressed_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    whole = gzip.compress("".join(f"{json.dumps(line(at))}\n" for at in range(200)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    files = TaskLogFiles.of(path)
    assert 0 < len(list(files.tasks())) < 200
    assert files.read.sentences()[-1].endswith("the compressed file ends early or is damaged")


@pytest.mark.parametrize("damaged", ["checksum", "trailing bytes"])
def test_a_damaged_compressed_log_is_read_as_far_as_it_goes(tmp_path: Path, damaged: str) -> None:
    """Regression: gzip's own error is an OSError, and the log was refused with "a temporary file: None"."""
    path = tmp_path / "tasks.jsonl.gz"
    whole = gzip.compress("".join(f"{json.dumps(line(at))}\n" for at in range(200)).encode())
    path.write_bytes(whole[:-8] + b"\1" * 8 if damaged == "checksum" else whole + b"garbage")
    files = TaskLogFiles.of(path)
    assert len(list(files.tasks())) == 200
    assert files.read.sentences()[-1].endswith("the compressed file ends early or is damaged")


def test_an_uncompressed_log_with_the_ending_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    path.write_text(json.dumps(line(1)))
    with pytest.raises(UnreadableTasks, match="the compressed file ends early or is damaged"):
        list(TaskLogFiles.of(path).tasks())


def test_more_tasks_than_can_be_checked_for_repetition_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_log, "MOST_TASKS", 3)
    path = written(tmp_path, *(line(at) for at in range(4)))
    with pytest.raises(UnreadableTasks, match="more than 3 tasks; read the files of one rollout at a time"):
        list(TaskLogFiles.of(path).tasks())


def test_a_file_that_is_not_a_task_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTasks, match="no valid task log line") as found:
        list(open_tasks(Source(str(written(tmp_path, {"model": "x"})), log="pointsman")))
    assert "row 1, column task_log: Object missing required field `task_log`" in str(found.value)


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
    assert (files.read.repeated, files.read.unmatched) == (1, 1)
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


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x" * 5_000, 1e308, -1, True, 10**30], ids=str)
@pytest.mark.parametrize("name", ["endpoint", "task_type", "prompt_tokens", "confidence", "customer_tier"])
def test_no_value_of_a_line_stops_the_estimate(tmp_path: Path, name: str, value: Any) -> None:
    strange: dict[str, Any] = {"request": {name: value}}
    found = studied(written(tmp_path, *many(30, 10, "candidate", **strange)))
    assert found.value is not None
    assert found.value.success.value == pytest.approx(0.75)


def test_thousands_of_unknown_names_are_counted_together(tmp_path: Path) -> None:
    rows = (line(at, version=100 + at) for at in range(1_500))
    found = studied(written(tmp_path, *rows))
    assert len(found.left_out) <= 1_001
    assert sum(found.left_out.values()) == 1_500


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
