"""The README's examples, run as they are printed."""

import re
from pathlib import Path
from typing import Any

from pointsman import Router
from pointsman.testing import FakeControlPlane
from tests.client.policies import two_stage

README = Path(__file__).parents[2] / "router_client" / "README.md"
POLICY = {
    **two_stage(workload="support-summaries"),
    "models": {"small": {"model": "openai/gpt-4o-mini"}, "large": {"model": "anthropic/claude-sonnet-4-5"}},
}


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_it_runs_the_two_stage_and_the_testing_examples() -> None:
    names: dict[str, Any] = {"POLICY": POLICY}
    _, two_stages, _, tests = examples()
    exec(two_stages, names)  # noqa: S102 - our own README
    exec(tests, names)  # noqa: S102
    names["test_our_gateway_escalates_uncertain_answers"]()
    names["test_our_gateway_survives_an_outage"]()


def test_it_names_only_methods_that_exist() -> None:
    text = README.read_text()
    for owner, names in (
        (Router, re.findall(r"router\.(\w+)\(", text)),
        (FakeControlPlane, re.findall(r"plane\.(\w+)\(", text)),
    ):
        assert names
        assert [name for name in names if not hasattr(owner, name)] == []
