"""manage.py backtest, as run by a person."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

pytestmark = pytest.mark.django_db

POLICY = """
format: 1
workload: gsm8k
models:
  weak: {model: mistralai/mixtral-8x7b-instruct-v0.1}
  strong: {model: openai/gpt-4-1106-preview}
default: weak
escalate: {to: strong, on: [error], when: response.confidence < 0.7}
fallback: [strong, weak]
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return str(tmp_path / "policy.yaml")


def answered(*arguments: str) -> str:
    out = StringIO()
    call_command("backtest", *arguments, stdout=out)
    return out.getvalue()


def test_it_prints_a_table_with_sentences(policy: str) -> None:
    text = answered(policy, "--tasks", "gsm8k", "--bar", "0.8")
    assert "1,307 tasks read, 1,307 compared, 1,307 of them with every cost known." in text
    assert "81.03 %" in text
    assert "the policy's rules are not shown to do better" in text
    assert "its interval reaches below the bar" in text


def test_it_prints_json(policy: str) -> None:
    document = json.loads(answered(policy, "--tasks", "gsm8k", "--json"))
    assert document["tasks"]["compared"] == 1_307
    assert document["policies"][0]["routing"]["escalation_rate"] == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_it_draws_the_curve(policy: str, tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib", reason="the optional package group `backtest` is not installed")
    path = tmp_path / f"curve.{ending}"
    answered(policy, "--tasks", "gsm8k", "--sweep", "escalate:0.4:0.9:2", "--picture", str(path))
    assert path.read_bytes().startswith(b"\x89PNG" if ending == "png" else b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tasks", "missing.csv"], "missing.csv: No such file or directory"),
        (["--tasks", "gsm8k", "--sweep", "escalate"], "write PLACE:LOW:HIGH:STEPS"),
        (["--tasks", "mmlu", "--sweep", "nowhere:0:1:3"], "There is no condition at 'nowhere'"),
        (["--tasks", "gsm8k", "--picture", "curve.pdf"], "must end in .svg or .png"),
        (["--tasks", "routerarena"], "None of 809 tasks can be compared"),
        (["--tasks", "gsm8k", "--bar", "90"], "--bar is a share from 0 to 1"),
        (["--tasks", "gsm8k", "--log", "litellm"], "The included gsm8k takes no --log"),
        (["--tasks", "x.jsonl", "--log", "litellm", "--bar", "0"], "one model per task takes no --bar"),
        (["--tasks", "x.jsonl", "--log", "litellm", "--sweep", "a:0:1:2"], "takes no --sweep"),
        (["--tasks", "x.jsonl", "--log", "pointsman", "--score", "turns"], "takes no --score"),
        (["--tasks", "x.jsonl", "--log", "pointsman", "--picture", "c.svg"], "takes no --picture"),
        (["--tasks", "x.jsonl", "--log", "pointsman", "--mapping", "m.yaml"], "takes no `mapping`"),
        (["--tasks", "x.jsonl", "--log", "litellm", "--mapping", "m.yaml"], "takes no `mapping`"),
        (["--tasks", "x.jsonl", "--log", "litellm", "--grades", "g.csv"], "takes no file of `grades`"),
        (["--tasks", "x.jsonl", "--log", "opentelemetry", "--grade", "ok"], "attribute pointsman.success"),
        (["--tasks", "x.jsonl", "--log", "langfuse", "--grade", "ok"], "--grades FILE"),
        (["--tasks", "x.csv", "--grade", "ok"], "A table takes no `grade`"),
    ],
)
def test_it_ends_with_an_explanation(policy: str, arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        answered(policy, *arguments)


def test_a_missing_version_is_named() -> None:
    with pytest.raises(CommandError, match="no version 3 of a workload 'support'"):
        answered("support/3", "--tasks", "gsm8k")


def test_a_log_is_compared_where_both_policies_agree(policy: str, tmp_path: Path) -> None:
    row = {"trace_id": "t", "call_type": "completion", "model": "mistralai/mixtral-8x7b-instruct-v0.1", "startTime": 1,
           "endTime": 2, "status": "success", "response_cost": 0.1, "ok": 1}  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(row))
    text = answered(policy, "--tasks", str(log), "--log", "litellm", "--grade", "ok")
    assert "in 1 of 1 logged tasks (100.0 %) the policy asks the same models" in text
    assert "Nothing is projected from this" in text


def test_it_needs_no_catalogue_if_the_file_has_costs(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkout whose database was never set up can still try a policy."""

    def no_table() -> None:
        raise OperationalError("no such table: policies_app_model")

    monkeypatch.setattr("rollout_app.management.commands.backtest.dollars_per_million", no_table)
    weak, strong = "mistralai/mixtral-8x7b-instruct-v0.1", "openai/gpt-4-1106-preview"
    table = tmp_path / "t.csv"
    table.write_text(f"{weak}:success,{weak}:cost_usd,{strong}:success,{strong}:cost_usd\n1,0.1,1,0.2\n")
    assert "1 task read, 1 compared, 1 of them with every cost known." in answered(
        policy, "--tasks", str(table)
    )
    assert "no such table" in capsys.readouterr().err


def test_a_binary_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="byte 0 is not valid UTF-8"):
        answered(str(tmp_path / "policy.yaml"), "--tasks", "gsm8k")
