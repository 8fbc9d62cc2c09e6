"""The task log: one line of figures for each completed task, which never delays a request."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointsman import Attempt, ConfigurationError, Router, TaskLog, Usage
from pointsman.choose import decide
from pointsman.task_log.files import LogFiles
from pointsman.task_log.line import propensity
from pointsman.testing import FakeControlPlane
from tests.client.deciding import assigned, entry, moving
from tests.client.policies import always, two_stage
from tests.client.watching import eventually

PROMPT = "Dear Sir, my name is Ada Lovelace and my printer is on fire."


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "tasks.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(plane: FakeControlPlane, log: TaskLog | Path, tasks: int = 1, **request: Any) -> Router:
    """A router that has completed some tasks and is closed."""
    with plane.router(task_log=log) as router:
        for at in range(tasks):
            decision = router.decide("summaries", request, {"request": f"r-{at}"})
            decision.next(Attempt(confidence=0.9, cost_nusd=100, latency_ms=7))
            router.record(decision, success=True)
    return router


def test_a_line_has_the_data_for_estimates_and_no_text(plane: FakeControlPlane, home: Path) -> None:
    plane.roll_out("summaries", always("large"), share_pcm=100_000 - 1)
    request = {"prompt_tokens": 900, "endpoint": "/tickets", "prompt": PROMPT, "task_type": "summary",
               "priority": "a b", "turns": "three",
               "attributes": {"contract": 12.5, "customer": "Ada", "region": "eu"}}  # fmt: skip
    with plane.router(task_log=TaskLog(home, attributes=["region"])) as router:
        decision = router.decide("summaries", request, {"request": "ada@example.org"})
        decision.next(Attempt(ok=False, error="timeout", latency_ms=80))
        decision.next(Attempt(confidence=0.9, cost_nusd=400_000, latency_ms=20))
        router.record(decision, success=True, quality=0.5)
    (line,) = read(home)
    text = home.read_text()
    assert "Ada" not in text and "ada@" not in text and "printer" not in text
    assert (line["arm"], line["version"], line["propensity"]) == ("candidate", 2, 0.99999)
    assert line["other"] == {"version": 1, "model": "vendor/small"}
    assert line["decision"] == decision.nonce and len(line["unit"]) == 16
    assert line["request"] == {
        "prompt_tokens": 900, "endpoint": "/tickets", "task_type": "summary",
        "attributes": {"contract": 12.5, "region": "eu"},
    }  # fmt: skip
    assert sorted(line["withheld"]) == ["attributes.customer", "priority", "turns"]
    assert [one["model"] for one in line["attempts"]] == [decision.model, line["attempts"][1]["model"]]
    assert line["attempts"][0]["error"] == "timeout" and "cost_nusd" not in line["attempts"][0]
    assert line["cost_nusd"] is None, "one attempt's cost is not known"
    assert (line["success"], line["quality"], line["latency_ms"]) == (True, 0.5, 100)


def test_a_task_recorded_without_attempts_gets_one_from_its_outcome(
    plane: FakeControlPlane, home: Path
) -> None:
    plane.prices = {"vendor/small": {"input": 150_000_000, "output": 600_000_000}}
    plane.serve("summaries", two_stage(), version=2)
    with plane.router(task_log=home) as router:
        router.record(router.decide("summaries"), success=False, usage=Usage(input=1_000), latency_ms=8)
    (line,) = read(home)
    assert line["attempts"] == [{"model": "vendor/small", "cost_nusd": 150_000, "latency_ms": 8}]
    assert (line["success"], line["cost_nusd"], line["arm"]) == (False, 150_000, "baseline")
    assert "rollout" not in line and "other" not in line


def test_a_call_that_was_not_reported_to_next_is_an_attempt_too(plane: FakeControlPlane, home: Path) -> None:
    with plane.router(task_log=home) as router:
        decision = router.decide("summaries")
        decision.next(Attempt(ok=False, error="timeout", cost_nusd=100, latency_ms=80))
        router.record(decision, success=None, error="rate_limited")
    (line,) = read(home)
    assert line["attempts"] == [
        {"model": "vendor/small", "cost_nusd": 100, "latency_ms": 80, "error": "timeout"},
        {"model": "vendor/large", "error": "rate_limited"},
    ]
    assert (line["cost_nusd"], line["latency_ms"], line["answered"]) == (None, None, "vendor/large")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (entry(), {1.0}),
        (moving("shadow"), {1.0}),
        (moving("full"), {1.0}),
        (moving("percentage", 20_000), {0.2, 0.8}),
        (moving("percentage", 0), {1.0}),
        (moving("percentage", 20_000) | {"pin": {"model": "large", "reason": "x"}}, {1.0}),
    ],
)
def test_the_propensity_is_the_share_of_the_slice(given: dict[str, Any], expected: set[float]) -> None:
    """By arm; without randomness it is 1."""
    assignment = assigned(given)
    found = {propensity(decide(assignment, {}, {"conversation": f"c-{at}"})) for at in range(200)}
    assert found == expected


def test_over_many_units_arms_are_as_frequent_as_their_propensities() -> None:
    assignment = assigned(moving("percentage", 20_000))
    decisions = [decide(assignment, {}, {"conversation": f"c-{at}"}) for at in range(5_000)]
    weights = [1 / propensity(decision) for decision in decisions if decision.arm == "candidate"]
    assert sum(weights) / 5_000 == pytest.approx(1, abs=0.1)


def test_units_are_pseudonyms_that_cannot_be_guessed_without_the_secret(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    units = []
    for name, secret in (("a", b""), ("b", b""), ("c", b"secret")):
        logged(plane, TaskLog(tmp_path / name, secret=secret))
        units += [line["unit"] for line in read(tmp_path / name)]
    assert units[0] == units[1] != units[2]


def test_later_feedback_is_a_separate_line(plane: FakeControlPlane, home: Path) -> None:
    with plane.router(task_log=home) as router:
        decision = router.decide("summaries")
        router.record(decision)
        router.feedback(decision.decision_id, "human_review", success=True, score=0.5)
        router.feedback("2.nonsense", "human_review", success=True)
    task, word = read(home)
    assert (task["success"], word["feedback"], word["kind"]) == (None, task["decision"], "human_review")
    assert (word["success"], word["score"]) == (True, 0.5)
    assert router.status()["task_log_dropped"] == 1, "the task of this feedback is unknown"


def test_decisions_without_a_policy_are_not_logged(plane: FakeControlPlane, home: Path) -> None:
    with plane.router(task_log=home, defaults={"other": "openai/gpt-4o"}) as router:
        router.record(router.decide("other"), success=True)
        assert router.status()["outcomes_without_policy"] == 1
    assert not home.exists()


def test_it_is_readable_by_its_owner_only(plane: FakeControlPlane, home: Path) -> None:
    before = os.umask(0)
    try:
        logged(plane, TaskLog(home, max_bytes=4_096), tasks=40)
    finally:
        os.umask(before)
    files = sorted(home.parent.iterdir())
    assert len(files) > 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700


def test_its_files_are_limited_and_no_line_is_cut(plane: FakeControlPlane, home: Path) -> None:
    files = LogFiles(home, 4_096, 2)
    for at in range(300):
        files.append(json.dumps({"at": at, "filler": "x" * 80}).encode() + b"\n")
    files.close()
    assert sorted(file.name for file in home.parent.iterdir()) == [
        "tasks.1.jsonl",
        "tasks.2.jsonl",
        "tasks.jsonl",
    ]
    assert all(file.stat().st_size <= 4_096 for file in home.parent.iterdir())
    order = [home.with_name("tasks.2.jsonl"), home.with_name("tasks.1.jsonl"), home]
    kept = [line["at"] for file in order for line in read(file)]
    assert kept == list(range(kept[0], 300)), "the oldest files were removed, and the rest is in order"


def test_with_no_older_files_allowed_it_replaces_the_full_one(home: Path) -> None:
    files = LogFiles(home, 4_096, 0)
    for _ in range(100):
        files.append(b"x" * 99 + b"\n")
    files.close()
    assert [file.name for file in home.parent.iterdir()] == ["tasks.jsonl"]


def test_a_partial_line_does_not_damage_the_next(plane: FakeControlPlane, home: Path) -> None:
    """A killed process or a full disk left half a line."""
    home.parent.mkdir()
    home.write_text('{"task_log": 1, "at": 17')
    logged(plane, home)
    torn, whole = home.read_text().splitlines()
    assert torn == '{"task_log": 1, "at": 17'
    assert json.loads(whole)["workload"] == "summaries"


def test_a_moved_file_is_not_written_to(home: Path) -> None:
    files = LogFiles(home, 4_096, 2)
    files.append(b"1\n")
    home.rename(home.with_name("moved"))
    files.append(b"2\n")
    home.unlink()
    files.append(b"3\n")
    files.close()
    assert (home.with_name("moved").read_text(), home.read_text()) == ("1\n", "3\n")


SHARED = """
import sys
from pathlib import Path
from pointsman.task_log.files import LogFiles
files = LogFiles(Path(sys.argv[1]), 4096, 1000)
for at in range(200):
    files.append(b"%s-%d\\n" % (sys.argv[2].encode() * 40, at))
"""


def test_processes_with_a_common_path_lose_nothing(home: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", SHARED, str(home), name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    lines = [line for file in home.parent.iterdir() for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name * 40}-{at}" for name in "abc" for at in range(200))
    assert all(file.stat().st_size <= 4_096 for file in home.parent.iterdir())


class Stuck(LogFiles):
    """A disk that hangs until it is released."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), 1 << 20, 0)
        self.let_go = threading.Event()

    def append(self, lines: bytes) -> None:
        self.let_go.wait(30)
        raise OSError("gone")


@pytest.fixture
def stuck(home: Path) -> Iterator[tuple[TaskLog, Stuck]]:
    log = TaskLog(home, waiting=10)
    log._files = files = Stuck()
    yield log, files
    files.let_go.set()


def test_a_hanging_disk_delays_no_request_and_overflow_is_counted(
    plane: FakeControlPlane, stuck: tuple[TaskLog, Stuck]
) -> None:
    log, _ = stuck
    router = logged(plane, log, tasks=25)
    status = router.status()
    assert status["outcomes_recorded"] == 25
    assert (status["task_log_written"], status["task_log_dropped"]) == (0, 25), "15 did not fit, 10 remained"


def test_a_failing_disk_is_reported_once_and_tried_again(
    plane: FakeControlPlane, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.mkdir(parents=True)  # a folder in place of the file
    with plane.router(task_log=home) as router:
        for _ in range(3):
            router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["task_log_problem"] is not None)
        assert "IsADirectoryError" in router.status()["task_log_problem"]
        home.rmdir()
    assert len(read(home)) == 3, "kept until the disk took them"
    assert sum("the task log can't be written" in record.message for record in caplog.records) == 1


def test_a_pipe_of_that_name_is_detected_without_waiting(home: Path) -> None:
    home.parent.mkdir()
    os.mkfifo(home)
    with pytest.raises(OSError, match="not a regular file"):
        LogFiles(home, 4_096, 0).append(b"1\n")


def test_a_partial_write_is_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LogFiles(home, 1 << 20, 0)
    files.append(b"first\n")
    with monkeypatch.context() as patched:
        real = os.write
        patched.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
        with pytest.raises(OSError, match="only part of the lines"):
            files.append(b"second\n")
    files.append(b"second\n")
    assert home.read_text() == "first\nsecond\n"


class Text(str):
    """An input that fails at every access."""

    def isprintable(self) -> bool:
        raise RuntimeError


def test_a_line_that_cannot_be_written_is_counted_and_the_outcome_kept(
    plane: FakeControlPlane, home: Path
) -> None:
    with plane.router(task_log=home) as router:
        router.record(router.decide("summaries", {"task_type": Text("x")}), success=True)
        assert router.status()["outcomes_recorded"] == 1
        assert (router.status()["task_log_dropped"], router.status()["outcomes_invalid"]) == (1, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_writes_only_its_own_lines(plane: FakeControlPlane, home: Path) -> None:
    with plane.router(task_log=home) as router:
        router.record(router.decide("summaries"), success=True)
        child = os.fork()
        if not child:
            try:
                router.record(router.decide("summaries"), success=False)
                router.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert sorted(line["success"] for line in read(home)) == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [{"max_bytes": 10}, {"older": -1}, {"waiting": 0}, {"secret": b"x" * 65}],
    ids=lambda one: next(iter(one)),
)
def test_invalid_sizes_are_refused(home: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a task log requires"):
        TaskLog(home, **wrong)


def test_a_text_is_no_list_of_attributes(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="attributes must be a list of names"):
        TaskLog(home, attributes="region")
