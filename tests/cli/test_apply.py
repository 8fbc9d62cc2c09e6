"""apply: what it says when it fails, when others change the same, and when it is run again."""

import json
from pathlib import Path
from typing import Any

import pytest

from pointsman.cli import folders
from pointsman.cli.changes import Change
from pointsman.cli.output import CliError, Output
from pointsman.cli.server import Server
from pointsman.policy import load
from policies_app.models import Assignment, Model
from rollout_app.models import Rollout
from tests.cli.conftest import Run
from tests.support.desired_folder import POLICY, policy

pytestmark = pytest.mark.django_db


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


def test_the_result_is_printed_also_if_the_wait_fails(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(server: Server, output: Output, rollout: str) -> dict[str, Any]:
        raise CliError("The control plane cannot be reached.")

    monkeypatch.setattr(folders, "watch_until_done", watch)
    run("apply", folder)
    policy(folder, "small", "large")
    code, said, error = run("apply", folder, "--json", "--wait")
    assert (code, "cannot be reached" in error) == (2, True)
    document = json.loads(said)
    assert document["rollouts"] == [str(Rollout.objects.get().pk)] and len(document["changes"]) == 2


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
