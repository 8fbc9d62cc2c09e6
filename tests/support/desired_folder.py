"""A folder that describes a control plane: two models, one environment and plan, and the workload `chat`."""

from pathlib import Path

from tests.support import builders

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


def write(home: Path) -> Path:
    """Write the folder and return it."""
    (home / "workloads" / "chat").mkdir(parents=True)
    (home / "models.yaml").write_text(MODELS)
    (home / "environments.yaml").write_text(ENVIRONMENTS)
    (home / "plans.yaml").write_text(PLANS)
    (home / "workloads" / "chat" / "workload.yaml").write_text(WORKLOAD.format(owner=builders.team().name))
    policy(home, "large", "small")
    return home


def policy(home: Path, default: str, other: str) -> None:
    (home / "workloads" / "chat" / "policy.yaml").write_text(POLICY.format(default=default, other=other))
