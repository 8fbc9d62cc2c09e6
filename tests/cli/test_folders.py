"""plan, apply and export: a control plane as a folder of YAML files."""

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.audit.models import Entry
from pointsman.cli import folders
from pointsman.cli.changes import Change
from pointsman.cli.output import CliError, Output
from pointsman.cli.server import Server
from pointsman.policy import load
from policies_app.models import Assignment, Model, PolicyVersion, Workload
from rollout_app.models import GuardrailOverride, Rollout
from tests.cli.conftest import Run
from tests.support import builders

pytestmark = pytest.mark.django_db

MODELS = """
- {name: x/small, input_nusd_per_mtok: 150000000, output_nusd_per_mtok: 600000000, context_window: 128000}
- {name: x/large, input_nusd_per_mtok: 3000000000, output_nusd_per_mtok: 15000000000, context_window: 200000}
"""
ENVIRONMENTS = "- {name: trial, four_eyes: false}\n"
PLANS = """
- name: two-steps
  stages:
    - {mode: percentage, share_pcm: 10000, min_minutes: 5, min_tasks: 100}
    - {mode: full}
"""
WORKLOAD = """
task_type: chat
quality_bar: 0.9
owner: {owner}
guardrails:
  failure: {{margin: 0.01}}
environments:
  trial: {{plan: two-steps}}
"""
POLICY = """
format: 1
workload: chat
models:
  small: {{model: x/small}}
  large: {{model: x/large}}
default: {default}
fallback: [{other}, {default}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "desired"
    (home / "workloads" / "chat").mkdir(parents=True)
    (home / "models.yaml").write_text(MODELS)
    (home / "environments.yaml").write_text(ENVIRONMENTS)
    (home / "plans.yaml").write_text(PLANS)
    (home / "workloads" / "chat" / "workload.yaml").write_text(WORKLOAD.format(owner=builders.team().name))
    policy(home, "large", "small")
    return home


def policy(home: Path, default: str, other: str) -> None:
    (home / "workloads" / "chat" / "policy.yaml").write_text(POLICY.format(default=default, other=other))


def test_plan_lists_the_changes_and_changes_nothing(run: Run, folder: Path) -> None:
    entries = Entry.objects.count()
    code, said, _ = run("plan", folder)
    assert code == 0
    for change in (
        "create  model",
        "x/small",
        "create  workload",
        "create  version",
        "chat/1",
        "serve",
        "chat in trial",
    ):
        assert change in said
    assert run("plan", "--exit-code", folder)[0] == 1
    assert Entry.objects.count() == entries
    assert not Workload.objects.exists()


def test_apply_makes_the_changes_and_a_second_time_none(run: Run, folder: Path) -> None:
    code, _, error = run("apply", folder)
    assert (code, error) == (0, "")
    assert Model.objects.filter(name__startswith="x/").count() == 2
    assert GuardrailOverride.objects.get(workload__name="chat").margin == 0.01
    assert Assignment.objects.get(workload__name="chat").baseline.number == 1
    entries = Entry.objects.count()
    code, said, _ = run("apply", folder)
    assert (code, said.strip()) == (0, "No changes.")
    assert Entry.objects.count() == entries, "no change, no audit entry"
    assert run("plan", "--exit-code", folder)[0] == 0


def test_a_new_document_becomes_a_version_and_a_proposed_rollout(run: Run, folder: Path) -> None:
    run("apply", folder)
    policy(folder, "small", "large")
    code, said, error = run("apply", folder, "--reason", "cheaper")
    assert (code, error) == (0, "")
    assert "propose rollout of version 2 of chat in trial: done" in said
    rollout = Rollout.objects.get()
    assert (rollout.baseline.number, rollout.candidate.number, rollout.plan_name) == (1, 2, "two-steps")
    assert rollout.reason == "cheaper"
    assert run("apply", folder)[1].strip() == "No changes.", "it is under way"


def test_a_version_that_somebody_else_adds_meanwhile_is_not_proposed(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("apply", folder)
    policy(folder, "small", "large")
    do = folders._do

    def somebody_else_was_first(server: Server, change: Change, *rest: Any) -> Any:
        if change.kind == "version":
            other = load(POLICY.format(default="small", other="large") + "retry: {attempts: 1}\n")
            server.post("workloads/chat/versions", {"policy": other})
        return do(server, change, *rest)

    monkeypatch.setattr(folders, "_do", somebody_else_was_first)
    code, _, error = run("apply", folder, "--start")
    assert (code, "It became version 3" in error) == (2, True), error
    assert "Nothing was changed" not in error
    assert not Rollout.objects.exists()
    monkeypatch.setattr(folders, "_do", do)
    assert run("apply", folder)[0] == 0
    assert Rollout.objects.get().candidate.number == 3


def four_eyes(folder: Path) -> None:
    (folder / "environments.yaml").write_text("- {name: trial, four_eyes: true}\n")


def test_a_first_version_that_waits_for_another_person_is_requested_once(run: Run, folder: Path) -> None:
    four_eyes(folder)
    code, said, error = run("apply", folder)
    assert (code, error) == (0, "")
    assert "serve version 1 of chat in trial: requested; another person must approve it" in said
    assert not Assignment.objects.exists()
    assert run("apply", folder)[:2] == (0, "No changes.\n")
    assert run("plan", "--exit-code", folder)[0] == 0


def test_a_repeated_pipeline_starts_and_follows_the_rollout_of_the_first_run(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = []

    def watch(server: Server, output: Output, rollout: str) -> dict[str, Any]:
        followed.append(rollout)
        return {"state": "rolled_back"}

    monkeypatch.setattr(folders, "watch_until_done", watch)
    run("apply", folder)
    policy(folder, "small", "large")
    run("apply", folder)
    rollout = Rollout.objects.get()
    assert (run("apply", folder)[0], followed) == (0, []), "without --start and --wait it is left alone"
    code, said, error = run("apply", folder, "--start", "--wait")
    assert (code, said.strip(), error) == (1, "No changes.", "")
    rollout.refresh_from_db()
    assert (rollout.state, followed) == ("running", [str(rollout.pk)])
    code, said, _ = run("apply", folder, "--json", "--wait")
    assert code == 1
    assert json.loads(said) == {
        "changes": [], "rollouts": [str(rollout.pk)], "ends": {str(rollout.pk): "rolled_back"},
    }  # fmt: skip


def test_the_result_is_one_json_document_even_after_waiting(run: Run, folder: Path) -> None:
    run("apply", folder)
    policy(folder, "small", "large")
    run("apply", folder)
    rollout = Rollout.objects.get()
    run("rollout", "cancel", rollout.pk, "-m", "no")
    code, said, _ = run("rollout", "watch", rollout.pk, "--json")
    assert (code, json.loads(said)["state"]) == (1, "cancelled")
    policy(folder, "large", "small")
    assert json.loads(run("apply", folder, "--json")[1]) == {"changes": [], "rollouts": []}


def test_a_reason_that_is_too_long_for_a_version_is_refused_first(run: Run, folder: Path) -> None:
    code, _, error = run("apply", folder, "--reason", "x" * 401)
    assert (code, "--reason has 401 characters" in error) == (2, True), error
    assert not Model.objects.filter(name__startswith="x/").exists()


def test_a_change_without_an_answer_may_have_been_made(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(server: Server, *rest: Any) -> Any:
        raise CliError("The control plane did not answer within 30 s.")

    monkeypatch.setattr(Server, "post", late)
    code, _, error = run("apply", folder)
    assert (code, "It may have been made; run it again to see." in error) == (2, True), error
    assert "Nothing was changed" not in error


def test_returning_to_an_older_document_creates_no_version(run: Run, folder: Path) -> None:
    run("apply", folder)
    policy(folder, "small", "large")
    run("apply", folder)
    policy(folder, "large", "small")
    assert run("apply", folder)[1].strip() == "No changes.", "version 1 is served"
    assert PolicyVersion.objects.count() == 2


def test_only_a_changed_field_is_sent(run: Run, folder: Path) -> None:
    run("apply", folder)
    (folder / "models.yaml").write_text(MODELS.replace("600000000,", "700000000,"))
    code, said, _ = run("--json", "plan", folder)
    (change,) = json.loads(said)["changes"]
    assert code == 0
    assert change["changes"] == {"output_nusd_per_mtok": {"before": 600_000_000, "after": 700_000_000}}
    run("apply", folder)
    assert Model.objects.get(name="x/small").output_nusd_per_mtok == 700_000_000


def test_nothing_is_applied_if_one_file_is_bad(run: Run, folder: Path) -> None:
    (folder / "plans.yaml").write_text("- [")
    policy(folder, "nowhere", "small")
    code, _, error = run("apply", folder)
    assert code == 2
    assert "Nothing was applied:" in error
    assert "plans.yaml is not valid YAML" in error
    assert 'policy.yaml: default (line 7, column 10): no model "nowhere" under models' in error
    assert not Model.objects.filter(name__startswith="x/").exists()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("models.yaml", "{}", "expected a list of objects"),
        ("models.yaml", "- {name: a}\n- {name: a}", "duplicate name a"),
        ("workloads/chat/workload.yaml", "- 1", "expected an object with a workload's fields"),
        ("workloads/chat/workload.yaml", "guardrails: [1]", "guardrails must map names to their settings"),
        (
            "workloads/chat/workload.yaml",
            "guardrails: {error: {bound: 0.02}}",
            "guardrails.error: a guardrail with a `bound` is called error_bound",
        ),
        (
            "workloads/chat/workload.yaml",
            "guardrails: {error_bound: {weight: 0.1}}",
            "guardrails.error_bound: `bound` is missing",
        ),
        (
            "workloads/chat/workload.yaml",
            "environments: {trial: {plam: careful}}",
            "environments.trial: unknown setting 'plam'; allowed are `plan` and `stages`",
        ),
        (
            "workloads/chat/workload.yaml",
            "environments: {trial: {plan: careful, stages: []}}",
            "environments.trial: give a saved `plan` or `stages`, not both",
        ),
        ("workloads/chat/workload.yaml", "name: other", "belongs to 'chat', the folder to 'other'"),
    ],
)
def test_it_explains_what_is_wrong_with_a_file(
    run: Run, folder: Path, file: str, content: str, says: str
) -> None:
    (folder / file).write_text(content)
    code, _, error = run("plan", folder)
    assert (code, says in error) == (2, True), error


def test_a_refusal_names_the_change_and_those_made_before(run: Run, folder: Path) -> None:
    (folder / "workloads" / "chat" / "workload.yaml").write_text(
        "{task_type: chat, quality_bar: 7, owner: nobody}"
    )
    code, _, error = run("apply", folder)
    assert code == 2
    assert "create workload chat:" in error
    assert "earlier changes were made." in error


def test_an_export_applies_without_changes(run: Run, folder: Path, tmp_path: Path) -> None:
    run("apply", folder)
    out = tmp_path / "exported"
    assert run("export", out)[0] == 0
    entries = Entry.objects.count()
    code, said, error = run("apply", out)
    assert (code, said.strip(), error) == (0, "No changes.", "")
    assert Entry.objects.count() == entries
    assert run("export", out)[0] == 2, "it overwrites nothing"


def guardrails(folder: Path, text: str) -> None:
    content = WORKLOAD.format(owner=builders.team().name).replace("failure: {margin: 0.01}", text)
    (folder / "workloads" / "chat" / "workload.yaml").write_text(content)


def test_changing_one_setting_of_a_guardrail_keeps_the_others(run: Run, folder: Path) -> None:
    guardrails(folder, "failure: {margin: 0.01, weight: 0.5}")
    run("apply", folder)
    guardrails(folder, "failure: {margin: 0.015, weight: 0.5}")
    run("apply", folder)
    row = GuardrailOverride.objects.get(workload__name="chat")
    assert (row.margin, row.weight) == (0.015, 0.5)
    guardrails(folder, "failure: {margin: 0.02}")
    run("apply", folder)
    row.refresh_from_db()
    assert (row.margin, row.weight) == (0.02, 0.5), "the folder no longer mentions the weight"
    assert run("apply", folder)[1].strip() == "No changes."


def test_absolute_guardrails_are_applied_and_exported(run: Run, folder: Path, tmp_path: Path) -> None:
    guardrails(folder, "failure: {margin: 0.01}\n  failure_bound: {bound: 0.2}\n  error_bound: {bound: 0.02}")
    assert run("apply", folder)[0] == 0
    rows = GuardrailOverride.objects.filter(workload__name="chat").order_by("pk")
    assert [(row.metric, row.margin, row.bound) for row in rows] == [
        ("failure", 0.01, None), ("failure", None, 0.2), ("error", None, 0.02),
    ]  # fmt: skip
    assert run("apply", folder)[1].strip() == "No changes."
    out = tmp_path / "exported"
    run("export", out)
    GuardrailOverride.objects.all().delete()
    assert run("apply", out)[0] == 0
    rows = GuardrailOverride.objects.filter(workload__name="chat")
    assert {(row.metric, row.margin, row.bound) for row in rows} == {
        ("failure", 0.01, None), ("failure", None, 0.2), ("error", None, 0.02),
    }  # fmt: skip


@pytest.mark.parametrize("where", ["nowhere", "."])
def test_a_missing_or_empty_folder_is_refused(
    run: Run, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run("plan", where)
    assert code == 2
    assert "is not a folder" in error or "is it the right one?" in error


def test_an_exported_text_stays_a_text_and_a_number_a_number() -> None:
    """`apply` reads a policy as YAML 1.2, in which an unquoted 1e3 is a number."""
    odd = [
        "1e3",
        "-1e-3",
        "1.e3",
        "-.5",
        "0o17",
        "0x1F",
        "12:30",
        "yes",
        "7",
        1e-7,
        1e22,
        -0.5,
        7,
        True,
        None,
    ]
    models = {"a": {"model": "x/y", "params": {"odd": odd}}, "b": {"model": "x/z"}}
    policy = {"format": 1, "workload": "w", "models": models, "default": "a", "fallback": ["b"]}
    assert repr(load(folders._yaml(policy))["models"]) == repr(load(json.dumps(policy))["models"])
