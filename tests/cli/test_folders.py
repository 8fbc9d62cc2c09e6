"""plan, apply and export: a control plane as a folder of YAML files."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controlplane.audit.models import Entry
from pointsman.cli import desired, folders
from pointsman.policy import load
from policies_app.models import Assignment, Model, PolicyVersion, Workload
from rollout_app.engine import plans
from rollout_app.models import GuardrailOverride, Plan, Rollout
from tests.cli.conftest import Run
from tests.support import builders
from tests.support.desired_folder import MODELS, PLANS, WORKLOAD, policy

pytestmark = pytest.mark.django_db

BOMB = "a: &a [x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{before}'] * 9)}]\n" for before, n in pairwise("abcdefghij")
)


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
    assert "plans.yaml: document (line 1, column 4): " in error and "[syntax]" in error
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
        (
            "models.yaml",
            "- {name: a, quality: .nan}",
            "[0].quality (line 1, column 22): .nan is not valid JSON",
        ),
        (
            "models.yaml",
            "- {name: a, price_source: !!binary aGk=}",
            "models.yaml: document (line 1, column 27): tags are not allowed",
        ),
        (
            "models.yaml",
            "- &a {name: a, x: [*a]}",
            "models.yaml: document (line 1, column 3): anchors and aliases",
        ),
        pytest.param("plans.yaml", BOMB, "(line 1, column 4): anchors and aliases", id="bomb"),
        (
            "models.yaml",
            "- {name: a,\n   name: b}",
            'models.yaml: [0].name (line 2, column 4): duplicate key "name"',
        ),
        pytest.param("plans.yaml", "#" * (1 << 20) + "#", "at most 1,024 KiB", id="large"),
        ("workloads/twin/workload.yaml", "name: chat", "duplicate name chat"),
        ("workloads/chat/workload.yaml", "name: other", "belongs to 'chat', the folder to 'other'"),
    ],
)
def test_it_explains_what_is_wrong_with_a_file(
    run: Run, folder: Path, file: str, content: str, says: str
) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
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


def test_a_date_is_text_and_a_decimal_a_number(run: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(MODELS.replace("small, ", "small, retires_on: 2027-01-31, "))
    file = folder / "workloads" / "chat" / "workload.yaml"
    file.write_text(file.read_text().replace("quality_bar: 0.9", 'quality_bar: "0.9"'))
    code, _, error = run("apply", folder)
    assert (code, error) == (0, "")
    assert str(Model.objects.get(name="x/small").retires_on) == "2027-01-31"
    assert run("apply", folder)[1].strip() == "No changes."


def test_a_word_that_only_yaml_1_1_takes_for_true_is_refused(run: Run, folder: Path) -> None:
    """As a text, the API would take it for true, and each run would change it again."""
    assert run("apply", folder)[0] == 0
    (folder / "environments.yaml").write_text("- {name: trial, four_eyes: yes}\n")
    code, _, error = run("plan", folder)
    assert (code, error.strip()) == (2, "pointsman: four_eyes must be true or false, not yes.")


def test_a_setting_of_a_stage_that_the_folder_drops_returns_to_its_default(run: Run, folder: Path) -> None:
    (folder / "plans.yaml").write_text(PLANS.replace("{mode: full}", "{mode: full, approval: true}"))
    run("apply", folder)
    (folder / "plans.yaml").write_text(PLANS)
    code, said, _ = run("plan", folder)
    assert (code, "stages[1].approval True → False" in said) == (0, True), said
    assert "min_tasks" not in said, "only what differs"
    run("apply", folder)
    assert Plan.objects.get(name="two-steps").stages[1]["approval"] is False
    assert run("apply", folder)[1].strip() == "No changes."


@pytest.mark.parametrize(
    "stage",
    [
        {"mode": "shadow"},
        {"mode": "percentage", "share_pcm": 5},
        {"mode": "full"},
        {"mode": "full", "tolerance": 2},
    ],
)
def test_the_defaults_of_a_stage_are_those_of_the_server(stage: dict[str, Any]) -> None:
    end = [] if stage["mode"] == "full" else [{"mode": "full"}]
    assert desired._whole_stage(stage) == plans.check([stage, *end])[0]


def test_an_export_of_an_unknown_environment_writes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    run("apply", folder)
    code, _, error = run("export", tmp_path / "out", "--environment", "prodution")
    assert (code, "prodution" in error) == (2, True), error
    assert not (tmp_path / "out").exists()


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
        "0819",
        "08",
        "-09",
        "2027-01-31",
        "a\x85b\u2028c",
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
