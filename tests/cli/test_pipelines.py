"""examples/ci: each `pointsman` command of the pipelines works against a control plane."""

import glob
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies_app.models import Assignment
from rollout_app.models import Rollout
from tests.cli.conftest import Run
from tests.support import builders
from tests.support.sources import ROOT

pytestmark = pytest.mark.django_db

GITHUB = yaml.load((ROOT / "examples" / "ci" / "github-actions.yml").read_text(), Loader=yaml.BaseLoader)  # noqa: S506
GITLAB = yaml.safe_load((ROOT / "examples" / "ci" / "gitlab-ci.yml").read_text())


def commands(job: str) -> dict[str, list[str]]:
    """Return the `pointsman` commands of this job, by pipeline."""
    github = [step["run"] for step in GITHUB["jobs"][job]["steps"] if "run" in step]
    found = {"github": github, "gitlab": GITLAB[job]["script"]}
    return {name: [line for line in lines if line.startswith("pointsman ")] for name, lines in found.items()}


def words(command: str) -> Iterator[str]:
    """Split the command as a shell would, without the options that wait for the end of a rollout."""
    for word in shlex.split(os.path.expandvars(command))[1:]:
        yield from sorted(glob.glob(word)) if "*" in word else [] if word == "--wait" else [word]  # noqa: PTH207


@pytest.fixture
def assignment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Assignment:
    """A served workload, with its folder in the current directory and a changed policy in it."""
    environment, workload = builders.environment(), builders.workload()
    assignment = builders.served(environment, workload)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_SHA": "1",
        "CI_PROJECT_PATH": "o/r",
        "CI_COMMIT_SHA": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert run("export", "pointsman")[0] == 0
    home = tmp_path / "pointsman" / "workloads" / workload.name
    policy = yaml.safe_load((home / "policy.yaml").read_text())
    (home / "policy.yaml").write_text(yaml.safe_dump({**policy, "rules": []}, sort_keys=False))
    fields: dict[str, Any] = yaml.safe_load((home / "workload.yaml").read_text())
    fields["environments"] = {environment.name: {"plan": "trial"}}
    (home / "workload.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return assignment


@pytest.mark.parametrize("pipeline", ["github", "gitlab"])
def test_a_pull_request_is_checked_and_changes_nothing(
    run: Run, assignment: Assignment, pipeline: str
) -> None:
    validate, plan = commands("check")[pipeline]
    assert run(*words(validate))[0] == 0
    code, said, error = run(*words(plan))
    assert (code, error) == (0, "")
    assert f"{assignment.workload.name}/2" in said
    assert assignment.workload.versions.count() == 1
    assert not Rollout.objects.exists()


@pytest.mark.usefixtures("as_it_was_built")
@pytest.mark.parametrize("pipeline", ["github", "gitlab"])
def test_a_merge_is_applied_and_the_log_verified(run: Run, assignment: Assignment, pipeline: str) -> None:
    apply, verify = commands("apply")[pipeline]
    code, said, error = run(*words(apply))
    assert code == 0, said + error
    rollout = Rollout.objects.get()
    assert (rollout.candidate.number, rollout.reason) == (2, "o/r@1")
    assert run(*words(verify))[0] == 0


def test_every_key_is_a_secret_and_each_job_has_a_time_limit() -> None:
    for job in ("check", "apply"):
        assert GITHUB["jobs"][job]["timeout-minutes"]
    keys = re.findall(r"POINTSMAN_KEY: (.+)", (ROOT / "examples" / "ci" / "github-actions.yml").read_text())
    assert keys
    assert all(key.startswith("${{ secrets.") for key in keys)
    assert GITLAB["apply"]["resource_group"], "one rollout after the other"
    assert GITHUB["concurrency"]["cancel-in-progress"] == "false"
