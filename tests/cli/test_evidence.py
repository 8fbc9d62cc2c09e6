"""backtest and audit verify: the effect of a version before any traffic, and the state of the audit log."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from controlplane.audit import verification
from pointsman.cli.server import Server
from policies_app.models import Workload
from tests.cli.conftest import Run
from tests.support import append_only, builders
from tests.support.task_logs import task_log

pytestmark = pytest.mark.django_db

SMALL, LARGE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"
HEADER = f"prompt_tokens,{SMALL}:success,{SMALL}:cost_usd,{LARGE}:success,{LARGE}:cost_usd\n"
TASKS = HEADER + "".join(f"{n * 100},{n % 2},0.001,1,0.01\n" for n in range(1, 41))


@pytest.fixture
def workload() -> Workload:
    found = builders.workload()
    builders.version(found)
    return found


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    file = tmp_path / "tasks.csv"
    file.write_text(TASKS)
    return file


def test_a_version_is_run_over_recorded_tasks(run: Run, workload: Workload, tasks: Path) -> None:
    code, said, error = run("backtest", workload.name, "1", "--tasks", tasks)
    assert (code, error) == (0, "")
    assert "40 tasks read, 40 compared, 40 with every cost known." in said
    assert f"always {LARGE}" in said
    found = json.loads(run("--json", "backtest", workload.name, "1", "--tasks", tasks)[1])
    assert found["tasks"]["read"] == 40


def test_a_pipeline_can_compare_a_version_with_a_bar(run: Run, workload: Workload, tasks: Path) -> None:
    assert run("backtest", workload.name, "1", "--tasks", tasks, "--bar", "0.1")[0] == 0
    assert run("backtest", workload.name, "1", "--tasks", tasks, "--bar", "1")[0] == 1


def test_a_bar_that_a_few_tasks_reach_is_met_with_a_caveat(
    run: Run, workload: Workload, tmp_path: Path
) -> None:
    file = tmp_path / "few.csv"
    file.write_text(HEADER + "100,1,0.001,1,0.01\n" * 5)
    code, said, _ = run("backtest", workload.name, "1", "--tasks", file, "--bar", "0.9")
    assert (code, "more tasks are needed to be sure" in said) == (0, True)
    assert f"saving against {SMALL}" in said or f"saving against {LARGE}" in said


def test_a_draft_can_be_backtested(run: Run, workload: Workload, tasks: Path, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    document = workload.versions.get(number=1).document
    draft.write_text(json.dumps({name: value for name, value in document.items() if name != "rank"}))
    code, said, error = run("backtest", workload.name, "1", "--draft", draft, "--tasks", tasks)
    assert (code, error) == (0, ""), error


def test_a_routers_task_log_is_estimated_with_intervals(run: Run, workload: Workload, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(task_log(workload, 200))
    code, said, error = run("backtest", workload.name, "1", "--tasks", file, "--log", "pointsman")
    assert (code, error) == (0, "")
    assert "Estimated from the tasks whose arm was drawn" in said and "75.0%" in said
    found = json.loads(
        run("--json", "backtest", workload.name, "1", "--tasks", file, "--log", "pointsman")[1]
    )
    assert found["policies"]["v1"]["drawn"]["value"]["tasks"] == 200


def answered(monkeypatch: pytest.MonkeyPatch, policies: Any) -> dict[str, Any]:
    """Answer backtests with these policies, and return the dictionary that will hold the request."""
    sent: dict[str, Any] = {}

    def compute(server: Server, where: str, body: dict[str, Any], seconds: float) -> Any:
        sent.update(body)
        return {"policies": policies}

    monkeypatch.setattr(Server, "compute", compute)
    return sent


def of_log(success: float | None, unsupported: int = 0) -> dict[str, Any]:
    """A version that agrees with a task log on tasks of which 95 % succeeded."""
    rate = {"value": success, "low": success, "high": success}
    none = {"value": None, "low": None, "high": None}
    costs = {"cost_per_task_usd": none, "cost_per_success_usd": none}
    value = None if success is None else {"tasks": 90, "success": rate, **costs}
    agreeing = {"value": 0.95, "low": 0.93, "high": 0.97}
    drawn = {"tasks": 90, "unsupported": {LARGE: unsupported}, "value": value}
    return {"tasks": 100, "agreed": 50, "graded": 50, "accuracy": agreeing, "drawn": drawn}


@pytest.mark.parametrize(
    ("found", "code"), [(of_log(0.80), 1), (of_log(0.92), 0), (of_log(0.92, 10), 1), (of_log(None), 1)]
)
def test_the_bar_of_a_task_log_is_compared_with_the_drawn_tasks(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, Any], code: int
) -> None:
    """Regression: the tasks on which a version agrees with the log are no random sample."""
    (tmp_path / "t.jsonl").write_text("{}")
    answered(monkeypatch, {"v1": found})
    arguments = ("backtest", "w", "1", "--tasks", tmp_path / "t.jsonl", "--log", "pointsman", "--bar", "0.9")
    assert run(*arguments)[0] == code


def test_every_kind_of_log_can_be_read(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Regression: a Langfuse log needs the unit of its latency, for which there was no option."""
    (tmp_path / "t.jsonl").write_text("{}")
    sent = answered(monkeypatch, {})
    log = ("backtest", "w", "1", "--tasks", tmp_path / "t.jsonl", "--log")
    assert run(*log, "langfuse", "--latency-unit", "s")[0] == 0
    assert (sent["log"], sent["latency_unit"]) == ("langfuse", "s")
    assert run(*log, "helicone", "--grade", "helpful", "--success-from", "0")[0] == 0
    assert (sent["grade"], sent["success_from"]) == ("helpful", 0)
    assert run("backtest", "w", "1", "--tasks", tmp_path / "t.jsonl", "--score", "turns")[0] == 0
    assert sent["score"] == "turns"
    code, _, error = run(*log, "litellm", "--bar", "0.9")
    assert (code, "chosen by another policy" in error) == (2, True)


def test_a_file_that_is_too_large_as_json_is_refused_here(
    run: Run, workload: Workload, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text('"' * (3 * 1024 * 1024))
    code, _, error = run("backtest", workload.name, "1", "--tasks", tmp_path / "t.csv")
    assert (code, "The request with these files is larger than 4 MiB" in error) == (2, True), error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["1"], "Give either --tasks FILE or --recorded SET"),
        (["1", "--tasks", "x", "--recorded", "mmlu"], "Give either --tasks FILE"),
        (["--recorded", "mmlu"], "Give at least one version"),
        (["9", "--recorded", "mmlu"], "9"),
        (["1", "--recorded", "nosuch"], "nosuch"),
        (["1", "--tasks", "/no/such/file"], "/no/such/file"),
        (["1", "--recorded", "mmlu", "--bar", "90"], "0 to 1"),
    ],
)
def test_it_explains_why_something_cannot_be_backtested(
    run: Run, workload: Workload, arguments: list[str], says: str
) -> None:
    code, _, error = run("backtest", workload.name, *arguments)
    assert (code, says in error) == (2, True), error


def test_a_binary_file_is_refused(run: Run, workload: Workload, tmp_path: Path) -> None:
    file = tmp_path / "tasks.parquet"
    file.write_bytes(b"PAR1\xff\xfe")
    code, _, error = run("backtest", workload.name, "1", "--tasks", file)
    assert (code, "is not UTF-8" in error) == (2, True), error


@pytest.mark.usefixtures("as_it_was_built")
def test_the_audit_log_is_verified_remotely(run: Run, workload: Workload) -> None:
    code, said, error = run("audit", "verify")
    assert (code, error) == (0, "")
    assert said.startswith("Verified: ")
    assert json.loads(run("--json", "audit", "verify")[1])["verified"] is True


def test_a_log_without_entries_is_not_called_verified(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = verification.Verified(findings=[], count=0, hash="", checkpoint=None)
    monkeypatch.setattr(verification, "verify", lambda **_: empty)
    code, said, _ = run("audit", "verify")
    assert (code, said.strip()) == (2, "No entries yet: nothing was verified.")


@pytest.mark.usefixtures("as_it_was_built")
def test_tampering_is_named_and_exits_with_1(run: Run, workload: Workload) -> None:
    with append_only.lifted(), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_entry SET reason = 'nothing happened' WHERE seq = 1")
    code, said, _ = run("audit", "verify")
    assert (code, said.startswith("NOT verified: ")) == (1, True), said
    assert said.count("\n") > 1
