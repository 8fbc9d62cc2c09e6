"""examples/poller.mjs and poller.sh, as processes, against the fake control plane."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pointsman.bucketing import bucket
from pointsman.testing import FakeControlPlane
from tests.client.policies import always, two_stage
from tests.client.watching import eventually, polls
from tests.support.sources import ROOT

EXAMPLES = ROOT / "examples"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@contextmanager
def running(plane: FakeControlPlane, folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run the poller within the block. Its output is in `out` and `err`."""
    env = {"PATH": os.environ["PATH"], "POINTSMAN_URL": plane.url, "POINTSMAN_KEY": "pmr_test"}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=out, stderr=err, text=True, process_group=0
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def said(folder: Path, stream: str = "out") -> str:
    return (folder / stream).read_text()


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="user")
        yield plane


@needs_node
def test_node_assigns_arms_like_every_other_router(plane: FakeControlPlane, tmp_path: Path) -> None:
    plane.roll_out("summaries", always("large"), share_pcm=50_000)
    units = [f"user-{number}" for number in range(20)]
    with running(plane, tmp_path, "node", str(EXAMPLES / "poller.mjs"), "summaries", *units):
        assert eventually(lambda: said(tmp_path).count("\n") == len(units)), said(tmp_path, "err")
    arms = [json.loads(line)["task"]["arm"] for line in said(tmp_path).splitlines()]
    assert arms == ["candidate" if bucket("rollout-1", unit) < 50_000 else "baseline" for unit in units]


@needs_node
def test_node_follows_changes_and_survives_an_outage(plane: FakeControlPlane, tmp_path: Path) -> None:
    command = ("node", str(EXAMPLES / "poller.mjs"), "summaries", "user-1")
    with running(plane, tmp_path, *command):
        assert eventually(lambda: "vendor/small" in said(tmp_path))
        plane.pin("summaries", "vendor/emergency")
        assert eventually(lambda: "vendor/emergency" in said(tmp_path))
        with plane.outage():
            assert eventually(lambda: "keeping the last known good" in said(tmp_path, "err"))
    with plane.outage(), running(plane, tmp_path, *command):  # restarted during the outage
        assert eventually(lambda: "keeping the last known good" in said(tmp_path, "err"))
    assert polls(plane)[1].headers["If-None-Match"], "it requests only changes"


@needs_node
def test_node_calls_the_pinned_model_by_the_providers_name(plane: FakeControlPlane, tmp_path: Path) -> None:
    """A pin names a model as the baseline's policy does, and overrides the arm."""
    plane.roll_out("summaries", two_stage(), share_pcm=99_999)
    plane.pin("summaries", "large")
    with running(plane, tmp_path, "node", str(EXAMPLES / "poller.mjs"), "summaries", "user-1"):
        assert eventually(lambda: said(tmp_path).endswith("\n")), said(tmp_path, "err")
    found = json.loads(said(tmp_path))
    task = found["task"]
    assert (found["call"], task["model"], task["arm"]) == ("vendor/large", "large", "baseline")
    assert (task["rollout"], task["stage"]) == (None, None), "a pinned task is no evidence about the rollout"


@needs_node
def test_node_reports_the_outcome_of_a_task(plane: FakeControlPlane, tmp_path: Path) -> None:
    script = (
        f"import {{ poll, decide, report }} from {str(EXAMPLES / 'poller.mjs')!r};"
        "await poll(); const decision = decide('summaries', 'user-1');"
        "console.log((await report(decision, { success: true, latency_ms: 12 })).status);"
    )
    with running(plane, tmp_path, "node", "--input-type=module", "--eval", script):
        assert eventually(lambda: said(tmp_path) == "202\n"), said(tmp_path, "err")
    (event,) = plane.events.values()
    assert (event["workload"], event["arm"], event["version"], event["model"]) == (
        "summaries", "baseline", 1, "small",
    )  # fmt: skip
    assert (event["success"], event["latency_ms"], event["rollout"]) == (True, 12, None)


@needs_curl
def test_bash_writes_a_file_and_runs_a_command_after_each_change(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot.json"
    with running(plane, tmp_path, str(EXAMPLES / "poller.sh"), str(file), "echo", "changed:"):
        assert eventually(lambda: f"changed: {file}" in said(tmp_path)), said(tmp_path, "err")
        assert "revision 1 of test" in said(tmp_path)
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: "revision 2 of test" in said(tmp_path))
        assert json.loads(file.read_text())["workloads"]["summaries"]["baseline"]["version"] == 2
        with plane.outage():
            assert eventually(lambda: "keeping the last snapshot" in said(tmp_path, "err"))
    assert polls(plane)[1].headers["If-None-Match"].startswith(f'"{plane.epoch}.1.')
    assert polls(plane)[0].wait_s == 25


@needs_curl
def test_bash_reports_that_there_is_no_snapshot_yet(plane: FakeControlPlane, tmp_path: Path) -> None:
    plane.key = "another"
    with running(plane, tmp_path, str(EXAMPLES / "poller.sh"), "snapshot.json"):
        assert eventually(lambda: "HTTP 401: there is none yet" in said(tmp_path, "err"))
    assert not (tmp_path / "snapshot.json").exists()
