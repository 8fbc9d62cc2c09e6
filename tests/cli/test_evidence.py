"""backtest and audit verify: the effect of a version before any traffic, and the state of the audit log."""

import json
from pathlib import Path

import pytest
from django.db import connection

from controlplane.audit import verification
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
