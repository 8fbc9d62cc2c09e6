"""rollout …, pin, init: what a person does on a control plane from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F

from controlplane.access.models import Key
from pointsman.cli import main
from pointsman.cli.server import Server
from policies_app.models import Assignment, Environment, Model
from rollout_app.models import Rollout
from tests.cli.conftest import Run
from tests.support import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def assignment() -> Assignment:
    environment, workload = builders.environment(), builders.workload()
    assignment = builders.served(environment, workload)
    builders.version(workload, rules=[])
    return assignment


def proposed(run: Run, assignment: Assignment, *more: str) -> tuple[int, str, str]:
    return run(
        "rollout",
        "propose",
        assignment.workload.name,
        "2",
        "-e",
        assignment.environment.name,
        "-m",
        "cheaper",
        *more,
    )


def test_the_evidence_report_is_written(run: Run, assignment: Assignment, tmp_path: Path) -> None:
    proposed(run, assignment)
    rollout = Rollout.objects.get()
    code, said, error = run("rollout", "report", rollout.pk)
    assert (code, error) == (0, "")
    assert said.startswith("# ") and assignment.workload.name in said
    assert "<" not in said, "it is Markdown, not HTML"
    assert run("report", rollout.pk)[1].splitlines()[0] == said.splitlines()[0], (
        "the same as without the group `rollout`"
    )
    file = tmp_path / "report.md"
    assert run("rollout", "report", rollout.pk, "--to", file)[0] == 0
    assert file.read_text().splitlines()[0] == said.splitlines()[0]
    assert isinstance(json.loads(run("--json", "rollout", "report", rollout.pk)[1]), dict)
    for command in (("report", rollout.pk, "--json"), ("rollout", "report", rollout.pk, "--json")):
        assert isinstance(json.loads(run(*command)[1]), dict), command
    assert run("rollout", "report", "01a229c3-0000-7000-8000-000000000000")[0] == 2


@pytest.mark.parametrize("group", [[], ["rollout"]])
def test_without_a_command_it_shows_only_the_help(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(group) == 2
    said = capsys.readouterr()
    assert "Usage: pointsman" in said.out
    assert said.err == ""


def test_a_rollout_is_proposed_started_and_rolled_back(run: Run, assignment: Assignment) -> None:
    code, said, error = proposed(run, assignment)
    assert (code, error) == (0, "")
    rollout = Rollout.objects.get()
    assert str(rollout.pk) in said
    assert run("rollout", "start", rollout.pk, "-m", "now")[0] == 0
    assert "stage" in run("rollout", "status", rollout.pk)[1]
    assert run("rollout", "pause", rollout.pk, "-m", "lunch")[0] == 0
    assert run("rollout", "resume", rollout.pk, "-m", "after lunch")[0] == 0
    code, said, _ = run("rollout", "roll-back", rollout.pk, "-m", "no")
    assert code == 0
    rollout.refresh_from_db()
    assert rollout.state in ("rolling_back", "rolled_back")


def test_a_proposal_that_needs_an_approval_is_shown_and_not_started(run: Run, assignment: Assignment) -> None:
    Environment.objects.update(four_eyes=True)
    code, said, error = proposed(run, assignment, "--start")
    assert (code, error) == (0, "")
    assert "it waits for an approval." in said and str(Rollout.objects.get().pk) in said


@pytest.mark.parametrize("action", ["pause", "roll-back", "abort"])
def test_an_urgent_action_does_not_depend_on_what_was_read_before(
    run: Run, assignment: Assignment, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    proposed(run, assignment, "--start")
    rollout = Rollout.objects.get()
    ask = Server._ask

    def engine_moves_after_a_read(server: Server, method: str, *rest: Any, **how: Any) -> Any:
        answer = ask(server, method, *rest, **how)
        Rollout.objects.update(version=F("version") + 1)
        return answer

    monkeypatch.setattr(Server, "_ask", engine_moves_after_a_read)
    code, _, error = run("rollout", action, rollout.pk, "-m", "now")
    assert (code, error) == (0, "")
    rollout.refresh_from_db()
    assert rollout.state in ("paused", "rolling_back", "rolled_back", "aborted")


def test_an_impossible_action_is_refused_with_an_explanation(run: Run, assignment: Assignment) -> None:
    proposed(run, assignment)
    code, _, error = run("rollout", "advance", Rollout.objects.get().pk, "-m", "too early")
    assert code == 2
    assert error.startswith("pointsman: ") and error.rstrip().endswith(")")


def test_watching_a_cancelled_rollout_exits_with_1(run: Run, assignment: Assignment) -> None:
    proposed(run, assignment)
    pk = Rollout.objects.get().pk
    run("rollout", "cancel", pk, "-m", "not today")
    code, said, _ = run("rollout", "watch", pk)
    assert (code, "cancelled" in said) == (1, True)


def test_rollouts_are_listed_as_a_table_or_as_json(run: Run, assignment: Assignment) -> None:
    proposed(run, assignment)
    assert assignment.workload.name in run("rollout", "list", "-e", assignment.environment.name)[1]
    (found,) = json.loads(run("--json", "rollout", "list")[1])
    assert found["workload"] == assignment.workload.name
    assert json.loads(run("--json", "rollout", "list", "--state", "completed")[1]) == []


def test_a_model_is_pinned_and_unpinned(run: Run, assignment: Assignment) -> None:
    where = (assignment.workload.name, "-e", assignment.environment.name)
    assert run("pin", where[0], "large", *where[1:], "-m", "outage")[0] == 0
    assignment.refresh_from_db()
    assert assignment.pin_model == "large"
    assert run("unpin", *where, "-m", "over")[0] == 0
    assignment.refresh_from_db()
    assert not assignment.pin_model


def test_a_version_is_compared_with_a_file(run: Run, assignment: Assignment, tmp_path: Path) -> None:
    name = assignment.workload.name
    code, said, _ = run("diff", f"{name}/1", f"{name}/2")
    assert (code, '-  "rules": [' in said) == (1, True)
    assert run("diff", f"{name}/1", f"{name}/1")[0] == 0
    assert "has no version 9" in run("diff", f"{name}/1", f"{name}/9")[2]


def test_a_policy_is_checked_against_the_servers_catalogue(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("format: 1\nworkload: w\nmodels: {a: {model: no/such}}\ndefault: a\nfallback: [a]\n")
    code, said, _ = run("validate", file)
    assert (code, "no/such" in said) == (1, True)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("POINTSMAN_URL", "", "The control plane's address is missing"),
        ("POINTSMAN_URL", "localhost", "is not a valid address of a control plane"),
        ("POINTSMAN_KEY", "", "An admin key (pma_…) is missing"),
        ("POINTSMAN_KEY", "pma_wrong", "unauthenticated"),
    ],
)
def test_it_names_the_missing_option_for_reaching_a_control_plane(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, _, error = run("rollout", "list")
    assert (code, says in error) == (2, True), error


LITELLM = """
model_list:
  - model_name: small
    litellm_params: {model: openai/gpt-4o-mini}
  - model_name: large
    litellm_params: {model: azure/mine, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
    model_info: {max_input_tokens: 128000}
  - model_name: small
    litellm_params: {model: azure/gpt-4o-mini}
"""
PRICES = {
    "gpt-4o-mini": {
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "max_input_tokens": 128_000,
    }
}


def from_litellm(home: Path) -> tuple[str | Path, ...]:
    """Arguments of `init` for LiteLLM's configuration and price map, which are written to the folder."""
    config, prices = home / "config.yaml", home / "prices.json"
    config.write_text(LITELLM)
    prices.write_text(json.dumps(PRICES))
    return "init", "--from", "litellm", config, "--prices", prices, "-y"


def test_init_sets_up_everything_from_litellms_configuration(run: Run, tmp_path: Path) -> None:
    arguments = from_litellm(tmp_path)
    code, said, error = run(*arguments, "--workload", "support", "-e", "trial")
    assert (code, error) == (0, "")
    small, large = Model.objects.get(name="small"), Model.objects.get(name="large")
    assert (small.input_nusd_per_mtok, small.output_nusd_per_mtok) == (150_000_000, 600_000_000)
    assert (large.input_nusd_per_mtok, large.output_nusd_per_mtok) == (2_500_000_000, 10_000_000_000)
    assignment = Assignment.objects.get(workload__name="support", environment__name="trial")
    assert assignment.baseline.document["models"]["today"]["model"] == "large"
    assert Key.objects.filter(kind="router", environment="trial").count() == 1
    assert "POINTSMAN_KEY" in said and "pmr_trial_" in said
    code, said, _ = run(*arguments, "--workload", "support", "-e", "trial")
    assert (code, "Everything existed already." in said) == (0, True)


def test_init_stores_the_router_key_for_its_user_only(run: Run, tmp_path: Path) -> None:
    arguments, where = from_litellm(tmp_path), tmp_path / "router.env"
    code, said, error = run(*arguments, "-e", "trial", "--write", where)
    assert (code, error) == (0, "")
    assert where.stat().st_mode & 0o777 == 0o600
    address, key = where.read_text().splitlines()
    assert address == "POINTSMAN_URL=http://localhost"
    assert key.startswith("POINTSMAN_KEY=pmr_trial_")
    assert "pmr_" not in said, "the key is only in the file"


def test_init_creates_nothing_if_the_key_cannot_be_stored(run: Run, tmp_path: Path) -> None:
    arguments = from_litellm(tmp_path)
    code, _, error = run(*arguments, "--write", tmp_path / "no" / "such" / "folder")
    assert (code, "No such file or directory" in error) == (2, True), error
    assert not Model.objects.exists()


def test_init_creates_nothing_for_a_model_with_an_unknown_window(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "model_list: [{model_name: small, litellm_params: {model: x/unheard-of}}]"
    )
    code, _, error = run("init", "--from", "litellm", tmp_path / "config.yaml", "-y")
    assert (code, "The context window of small is not known" in error) == (2, True), error
    assert not Model.objects.exists()


def test_init_with_one_model_creates_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(LITELLM[: LITELLM.index("  - model_name: large")])
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    arguments = (
        "init",
        "--from",
        "litellm",
        tmp_path / "config.yaml",
        "--prices",
        tmp_path / "prices.json",
        "-y",
    )
    code, _, error = run(*arguments)
    assert (code, "A policy needs a second model as the fallback" in error) == (2, True), error
    assert not Model.objects.exists() and not Environment.objects.exists()


def test_init_leaves_what_is_served_already_and_says_so(
    run: Run, assignment: Assignment, tmp_path: Path
) -> None:
    where = ("--workload", assignment.workload.name, "-e", assignment.environment.name)
    code, said, error = run(*from_litellm(tmp_path), *where)
    assert (code, error) == (0, "")
    assert "serves version 1 already, and nothing about it was changed." in said
    assert "everything goes to" not in said


def test_init_under_four_eyes_requests_the_first_version_once(run: Run, tmp_path: Path) -> None:
    builders.environment("prod", four_eyes=True)
    arguments = (*from_litellm(tmp_path), "-e", "prod")
    for _ in range(2):
        code, said, error = run(*arguments)
        assert (code, error) == (0, "")
        assert "Serving version 1 in prod was requested; another person must approve it." in said
        assert "prod serves version 1" not in said and "as before" not in said
    assert not Assignment.objects.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [("{}", "has no model_list"), ("model_list: [{a: 1}]", "no model_name"), ("a: [", "is not YAML")],
)
def test_init_explains_what_is_wrong_with_a_configuration(
    run: Run, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    code, _, error = run("init", "--from", "litellm", tmp_path / "config.yaml", "-y")
    assert (code, says in error) == (2, True), error
